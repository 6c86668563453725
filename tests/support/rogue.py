"""What somebody tries who has a connection under a role that may not do it. Everything is made from the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import psycopg

REFUSED = "42501"
Database = psycopg.Connection[Any]

_COLUMNS = """
select quote_ident(n.nspname) || '.' || quote_ident(c.relname), array_agg(quote_ident(a.attname) order by a.attnum),
  array_agg(case when a.attidentity <> '' or a.attgenerated <> '' then 'default' else quote_ident(a.attname) end
    order by a.attnum)
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relkind in ('r', 'p') and n.nspname = any (%s)
group by 1 order by 1
"""
_ON_TABLES = (
    "insert into {t} default values",
    "insert into {t} ({c}) overriding system value select {c} from {t}",
    "merge into {t} using (select 1) as x on false when not matched then insert default values",
    "delete from {t}",
    "truncate {t}",
    "truncate {t} cascade",
    "lock table {t} in row exclusive mode",
    "alter table {t} add column rogue text",
    "alter table {t} disable row level security",
    "alter table {t} disable trigger all",
    "alter table {t} owner to current_user",
    "drop table {t}",
    "drop table {t} cascade",
    "create policy rogue on {t} using (true) with check (true)",
    "create index rogue on {t} ({c})",
    "create rule rogue as on select to {t} do also nothing",
    "create trigger rogue before update on {t} for each row execute function suppress_redundant_updates_trigger()",
    "comment on table {t} is 'rogue'",
)
_ELSEWHERE = (
    "create table public.rogue ()",
    "create table public.rogue as select 1",
    "create view public.rogue as select 1",
    "create sequence public.rogue",
    "create type public.rogue as enum ()",
    "create domain public.rogue as text",
    "create function public.rogue() returns int language sql as 'select 1'",
    "create function public.md5(text) returns text language sql as 'select $1'",
    "create operator public.|| (leftarg = text, rightarg = bigint, function = pg_catalog.textanycat)",
    "create schema rogue",
    "drop schema public cascade",
    "alter schema public owner to current_user",
    "create publication rogue for table public.clips",
    "alter publication supabase_realtime drop table public.clips",
    "create role rogue",
    "create database rogue",
    "grant service_role to current_user",
    "grant pg_write_all_data to current_user",
    "alter role current_user bypassrls",
    "alter role current_user superuser",
    "alter role service_role nologin",
    "set role postgres",
    "set role service_role",
    "set role authenticated",
    "set session_replication_role = replica",
    "alter system set fsync = off",
    "alter default privileges for role postgres in schema public grant all on tables to public",
    "copy (select 1) to program 'true'",
    "copy (select 1) to '/tmp/rogue'",
    "select pg_read_file('/etc/passwd')",
    "select lo_import('/etc/passwd')",
    "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'postgres'",
    "create event trigger rogue on ddl_command_start execute function rogue()",
    "drop function public.ambara_submit",
    "alter function public.ambara_submit security invoker",
    "alter function public.ambara_draftable rename to rogue",
    "create or replace function public.ambara_schema_version() returns integer language sql immutable as 'select 99'",
)
_ALONE = ("create database", "alter system")
"""Statements that are not for transactions."""


@dataclass
class Tries:
    """How many statements were tried, and those that met anything but a refusal."""

    count: int = 0
    otherwise: list[str] = field(default_factory=list)


def attempt(db_url: str, role: str, statements: Iterable[str]) -> Tries:
    """Execute each under `role`, which is made the session's own, and undo it should it be carried out."""
    tries = Tries()
    with psycopg.connect(db_url, autocommit=True) as db:
        db.execute(f"set session authorization {role}".encode())
        for statement in statements:
            tries.count += 1
            try:
                with nullcontext() if statement.startswith(_ALONE) else db.transaction(force_rollback=True):
                    db.execute(statement.encode())
            except psycopg.Error as error:
                if error.sqlstate != REFUSED:
                    tries.otherwise.append(f"{statement}: {error.sqlstate} {error.diag.message_primary}")
            else:
                tries.otherwise.append(f"{statement}: done")
    return tries


def on_tables(db: Database, *schemas: str, only: Sequence[str] = ()) -> list[str]:
    """Every way to write, for every table and every column of these schemas."""
    found = []
    for table, columns, values in db.execute(_COLUMNS.encode(), [list(schemas)]).fetchall():
        if only and table not in only:
            continue
        found += [f"update {table} set {c} = {v}" for c, v in zip(columns, values, strict=True)]
        found += [each.format(t=table, c=columns[0]) for each in _ON_TABLES]
        found.append(f"select * from {table} for update")
    return found


def on_sequences(db: Database, schema: str) -> list[str]:
    """Every way to move a sequence."""
    query = (
        "select quote_ident(schemaname) || '.' || quote_ident(sequencename) from pg_sequences "
        "where schemaname = %s order by 1"
    )
    names = [row[0] for row in db.execute(query.encode(), [schema]).fetchall()]
    return [
        f"select {call}" for n in names for call in (f"nextval('{n}')", f"setval('{n}', 1)", f"last_value from {n}")
    ]


def on_everything_else() -> list[str]:
    """Things made, dropped and taken: roles, schemas, functions, files."""
    return list(_ELSEWHERE)


def calls(db: Database, names: Iterable[str]) -> list[str]:
    """A call of each of these functions of the schema `public`, without a single argument that means anything."""
    query = """
        select 'select public.' || quote_ident(p.proname) || '(' || coalesce(
          (select string_agg('null::' || format_type(t, null), ', ' order by n)
           from unnest(p.proargtypes) with ordinality as u (t, n)), '') || ')'
        from pg_proc p where p.pronamespace = 'public'::regnamespace and p.proname = any (%s) order by 1
    """
    return [row[0] for row in db.execute(query.encode(), [list(names)]).fetchall()]


def functions(db: Database) -> set[str]:
    """The names of all functions of Ambara that can be called. A trigger's cannot, whoever tries."""
    query = (
        "select proname from pg_proc where pronamespace = 'public'::regnamespace and proname like 'ambara\\_%' "
        "and prorettype <> 'trigger'::regtype"
    )
    return {row[0] for row in db.execute(query.encode()).fetchall()}


def executable(db: Database, role: str) -> set[str]:
    """Those of them that `role` may execute."""
    return {name for name in functions(db) if _may(db, role, name)}


def _may(db: Database, role: str, name: str) -> bool:
    query = (
        "select bool_or(has_function_privilege(%s, oid, 'execute')) from pg_proc "
        "where pronamespace = 'public'::regnamespace and proname = %s"
    )
    row = db.execute(query.encode(), [role, name]).fetchone()
    return bool(row and row[0])


def contents(db: Database, *schemas: str) -> dict[str, list[str]]:
    """Every row of every table of these schemas."""
    tables = [row[0] for row in db.execute(_COLUMNS.encode(), [list(schemas)]).fetchall()]
    return {t: sorted(row[0] for row in db.execute(f"select x::text from {t} x".encode()).fetchall()) for t in tables}
