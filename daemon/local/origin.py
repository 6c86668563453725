"""The SQL that a fresh database gets: platform, the editor's tables, then Ambara's own migrations."""

from __future__ import annotations

from pathlib import Path

import httpx
import psycopg

from daemon import migrate

_HERE = Path(__file__).parent


def platform_sql() -> str:
    """Roles, grants and the empty publication of a Supabase project; safe to run twice."""
    return _read("platform")


def origin_sql(*, minimal: bool) -> str:
    """The editor's tables; `minimal` leaves out `runs.type`, `clips.paragraphs` and `jobs`."""
    return _read("schema") if minimal else _read("schema") + _read("optional")


def storage_sql() -> str:
    """The bucket `clips` and its policies; needs the tables that the storage server makes; safe to run twice."""
    return _read("storage")


def prepare(db_url: str, *, minimal: bool) -> None:
    """Bring a database to where the daemon can use it, one transaction a step; a second call changes nothing."""
    with psycopg.connect(db_url, autocommit=True) as connection:
        with connection.transaction():
            connection.execute(platform_sql().encode())
        with connection.transaction():
            present = connection.execute("select to_regclass('public.clips') is not null").fetchone()
            if present != (True,):
                connection.execute(origin_sql(minimal=minimal).encode())
    migrate.apply(db_url)


def empty(db_url: str, url: str, service_role_key: str) -> None:
    """Empty the bucket `clips` and every table of the schema `public`."""
    with psycopg.connect(db_url, autocommit=True, options="-c lock_timeout=20s") as connection:
        if connection.execute("select 1 from storage.objects limit 1").fetchone():
            headers = {"apikey": service_role_key, "Authorization": f"Bearer {service_role_key}"}
            httpx.post(f"{url}/storage/v1/bucket/clips/empty", headers=headers, timeout=60).raise_for_status()
        tables = connection.execute(
            "select string_agg(format('%I.%I', schemaname, tablename), ', ') from pg_tables where schemaname = 'public'"
        ).fetchone()
        if tables and tables[0]:
            connection.execute(f"truncate {tables[0]} restart identity".encode())


def _read(name: str) -> str:
    return (_HERE / "origin" / f"{name}.sql").read_text(encoding="utf-8")
