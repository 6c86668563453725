"""Migrations on a real PostgreSQL: every shape of the editor's database, every way the record can be lost."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from daemon import migrate
from daemon.errors import ConfigurationError, TemporaryError
from daemon.local.origin import origin_sql
from daemon.local.process import wait_until
from daemon.local.stack import LocalStack

NAMES = [f"{each.version}_{each.name}" for each in migrate.migrations()]
OPTIONAL = (
    "alter table runs add column type text not null default 'extraction'; alter table clips add column paragraphs jsonb"
)


def sql(url: str, text: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(text.encode())
        return cursor.fetchall() if cursor.description else []


def add_clip(url: str, name: str) -> None:
    sql(
        url,
        f"with r as (insert into runs (label) values ('r') returning id) "
        f"insert into clips (run_id, file_name) select id, '{name}' from r",
    )


def shape(url: str) -> list[tuple[object, ...]]:
    """Everything the migrations make, as the catalogue tells it."""
    return sql(
        url,
        """
        select 'column', table_name || '.' || column_name, data_type from information_schema.columns
          where table_schema = 'public'
        union all select 'index', indexname, indexdef from pg_indexes where schemaname = 'public'
        union all select 'function', p.oid::regprocedure::text, concat(md5(prosrc), proacl, prosecdef, proconfig)
          from pg_proc p where pronamespace = 'public'::regnamespace
        union all select 'policy', tablename || '.' || policyname, roles::text from pg_policies
        union all select 'grant', table_name || '.' || grantee, privilege_type
          from information_schema.role_table_grants where table_schema = 'public'
        union all select 'grant', table_name || '.' || column_name || '.' || grantee, privilege_type
          from information_schema.role_column_grants where table_schema = 'public' and grantee = 'ambara_daemon'
        union all select 'published', tablename, '' from pg_publication_tables
        order by 1, 2, 3
        """,
    )


@pytest.fixture(params=["minimal", "full"])
def dataset(request: pytest.FixtureRequest, blank_database: str) -> str:
    """The editor's database as its guide makes it, and as its later releases do."""
    sql(blank_database, origin_sql(minimal=request.param == "minimal"))
    return blank_database


def test_applied_once_and_recorded_as_the_supabase_cli_does(dataset: str) -> None:
    assert migrate.pending(dataset) == NAMES
    assert migrate.apply(dataset) == NAMES
    assert migrate.pending(dataset) == []
    assert migrate.apply(dataset) == []
    rows = sql(
        dataset,
        "select version, name, array_length(statements, 1) from supabase_migrations.schema_migrations order by 1",
    )
    assert [f"{version}_{name}" for version, name, _ in rows] == NAMES
    assert all(len(str(version)) == 14 and statements == 1 for version, _, statements in rows)
    assert sql(dataset, "select ambara_status() -> 'published'") == [(["ambara_daemons", "clips"],)]


def test_a_dry_run_changes_nothing(dataset: str) -> None:
    before = shape(dataset)
    migrate.pending(dataset)
    assert shape(dataset) == before
    assert sql(dataset, "select to_regclass('supabase_migrations.schema_migrations')") == [(None,)]


def test_what_is_recorded_is_applied_again_when_asked(dataset: str) -> None:
    """Somebody took something away, and the record does not know."""
    migrate.apply(dataset)
    before = shape(dataset)
    sql(dataset, "drop function ambara_status(); drop table training_requests")
    assert migrate.apply(dataset) == []
    assert migrate.pending(dataset, again=True) == NAMES
    assert migrate.apply(dataset, again=True) == NAMES
    assert shape(dataset) == before


@pytest.mark.parametrize(
    "loss", ["drop schema supabase_migrations cascade", "truncate supabase_migrations.schema_migrations"]
)
def test_applied_again_when_the_record_is_lost(dataset: str, loss: str) -> None:
    """Nothing differs afterwards, and no row is gone."""
    migrate.apply(dataset)
    add_clip(dataset, "a.wav")
    sql(dataset, "select ambara_register_model('m', 'f', '{}', true); select ambara_beat('w', '{}')")
    before = shape(dataset)
    sql(dataset, loss)
    assert migrate.apply(dataset) == NAMES
    assert shape(dataset) == before
    assert sql(dataset, "select (select count(*) from clips), (select count(*) from model_versions)") == [(1, 1)]


def test_what_the_cli_has_recorded_is_not_applied_again(dataset: str) -> None:
    """Its older releases made a record with the version alone."""
    migrate.apply(dataset)
    sql(dataset, "drop schema supabase_migrations cascade; create schema supabase_migrations")
    sql(dataset, "create table supabase_migrations.schema_migrations (version text primary key)")
    sql(dataset, f"insert into supabase_migrations.schema_migrations values ('{NAMES[0][:14]}')")
    assert migrate.apply(dataset) == NAMES[1:]
    assert sql(dataset, "select count(*) from supabase_migrations.schema_migrations") == [(len(NAMES),)]


def test_the_editors_columns_may_come_later(blank_database: str) -> None:
    """The functions heed them from the moment they are there, without another migration."""
    sql(blank_database, origin_sql(minimal=True))
    migrate.apply(blank_database)
    add_clip(blank_database, "a.wav")
    assert sql(blank_database, "select count(*) from ambara_draftable()") == [(1,)]
    sql(blank_database, OPTIONAL)
    assert sql(blank_database, "select count(*) from ambara_draftable()") == [(1,)]
    sql(blank_database, "update clips set paragraphs = '[]'")
    assert sql(blank_database, "select count(*) from ambara_draftable()") == [(0,)]
    sql(blank_database, "update clips set paragraphs = null; update runs set type = 'reading'")
    assert sql(blank_database, "select count(*) from ambara_draftable()") == [(0,)]
    sql(blank_database, "drop schema supabase_migrations cascade")
    assert migrate.apply(blank_database) == NAMES


def test_the_printed_sql_does_the_same(dataset: str) -> None:
    """Twice, as people do who are not sure that it worked."""
    for _ in range(2):
        sql(dataset, migrate.script())
    pasted = shape(dataset)
    assert migrate.apply(dataset) == NAMES
    assert shape(dataset) == pasted


def test_a_reload_is_announced(dataset: str) -> None:
    """PostgREST listens on the channel `pgrst`."""
    with psycopg.connect(dataset, autocommit=True) as listener:
        listener.execute("listen pgrst")
        migrate.apply(dataset)
        heard = [note.payload for note in listener.notifies(timeout=10, stop_after=1)]
    assert heard == ["reload schema"]


def test_two_at_once(dataset: str) -> None:
    """The second waits for the first, and then leaves out what that one has applied."""
    waiting = "select 1 from pg_locks where locktype = 'advisory' and not granted"
    with ThreadPoolExecutor(1) as pool:
        with psycopg.connect(dataset) as first:
            first.execute("select pg_advisory_xact_lock(hashtext('ambara_migrate'))")
            second = pool.submit(migrate.apply, dataset)
            assert wait_until(lambda: second.done() or bool(sql(dataset, waiting)), 30)
            assert not second.done(), second.result()
            first.execute(migrate.migrations()[0].sql.encode())
            first.execute("create schema supabase_migrations")
            first.execute("create table supabase_migrations.schema_migrations (version text primary key)")
            first.execute("insert into supabase_migrations.schema_migrations values (%s)", [NAMES[0][:14]])
        assert second.result(60) == NAMES[1:]


def test_a_migration_that_fails_leaves_nothing_behind(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = migrate.Migration("99990101000000", "broken", "create table half_done (); select 1 / 0;")
    every = migrate.migrations()
    monkeypatch.setattr(migrate, "migrations", lambda: [*every, broken])
    with pytest.raises(
        ConfigurationError, match=r"99990101000000_broken failed and nothing of it was applied: division by zero"
    ):
        migrate.apply(dataset)
    assert sql(dataset, "select to_regclass('half_done')") == [(None,)]
    assert migrate.pending(dataset) == ["99990101000000_broken"]


def test_what_a_migration_does_without_is_said(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is there already is not."""
    text = "create schema if not exists public; do $$ begin raise warning 'no publication'; end $$;"
    lacking = migrate.Migration("99990101000000", "lacking", text)
    every = migrate.migrations()
    monkeypatch.setattr(migrate, "migrations", lambda: [*every, lacking])
    warnings: list[str] = []
    assert migrate.apply(dataset, warnings.append) == [*NAMES, "99990101000000_lacking"]
    assert warnings == ["no publication"]


def test_a_database_without_the_editors_tables(blank_database: str) -> None:
    for act in (migrate.apply, migrate.pending):
        with pytest.raises(ConfigurationError, match="no table runs: run the editor's SQL first"):
            act(blank_database)
    sql(blank_database, "create table runs (id uuid primary key)")
    with pytest.raises(ConfigurationError, match="no table clips"):
        migrate.apply(blank_database)
    assert sql(blank_database, "select count(*) from pg_namespace where nspname = 'supabase_migrations'") == [(0,)]


def test_a_user_who_may_not(dataset: str) -> None:
    try:
        sql(dataset, "create role visitor login password 'hush'; grant usage on schema public to visitor")
        with pytest.raises(ConfigurationError, match=r"may not do this: .*Use the project's user postgres"):
            migrate.apply(dataset.replace(dataset.split("@", maxsplit=1)[0], "postgresql://visitor:hush"))
        assert migrate.pending(dataset) == NAMES
    finally:
        sql(dataset, "drop owned by visitor; drop role visitor")


def test_a_table_that_somebody_holds(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "_PATIENCE", "set local lock_timeout = '100ms'")
    with psycopg.connect(dataset) as somebody:
        somebody.execute("lock table clips in access exclusive mode")
        with pytest.raises(TemporaryError, match="Somebody holds a table"):
            migrate.apply(dataset)
    assert migrate.apply(dataset) == NAMES


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (lambda url: re.sub(r":\w+@", ":hush@", url), ConfigurationError, "refuses the user"),
        (lambda url: url.replace("//postgres:", "//nobody-here:"), ConfigurationError, "refuses the user"),
        (lambda url: url.rpartition("/")[0] + "/no_such_database", ConfigurationError, "no such database"),
        (lambda _url: "postgresql://u:hush@nosuch.invalid/postgres", ConfigurationError, "No host has the name"),
        (lambda _url: "postgresql://u:hush@127.0.0.1:1/postgres", TemporaryError, "127.0.0.1:1 does not answer"),
        (lambda _url: "u hush", ConfigurationError, "not a database address"),
        (lambda _url: "postgresql://u:hu%sh@h/db", ConfigurationError, "not a database address"),
    ],
)
def test_addresses_that_do_not_work(local_stack: LocalStack, change: object, kind: type[Exception], said: str) -> None:
    assert callable(change)
    with pytest.raises(kind, match=said) as caught:
        migrate.apply(change(local_stack.db_url))
    assert "hush" not in str(caught.value)
    assert local_stack.keys.db_password not in str(caught.value)
