"""What the bridge asks PostgreSQL about tables, types, roles and the publication."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import AsyncConnection, sql

from daemon.local.realtime.settings import BridgeSettings
from daemon.local.realtime.values import TypeInfo, kind_of

Connection = AsyncConnection[tuple[Any, ...]]
TableName = tuple[str, str]
"""Schema and table."""

_STYLES = "-c DateStyle=ISO -c IntervalStyle=postgres -c extra_float_digits=1 -c bytea_output=hex"

_COLUMNS = """
select a.attname, a.atttypid, coalesce(a.attnum = any(i.indkey), false), c.relrowsecurity,
       array(select r from unnest(%(roles)s::text[]) r where has_column_privilege(r, a.attrelid, a.attnum, 'select'))
from pg_attribute a
join pg_class c on c.oid = a.attrelid
left join pg_index i on i.indrelid = a.attrelid and i.indisprimary
where a.attrelid = %(table)s and a.attnum > 0 and not a.attisdropped
order by a.attnum
"""

_TYPE = """
with recursive base as (
  select oid, typname, typtype, typbasetype, typcategory, typelem, typdelim, typname as own from pg_type where oid = %s
  union all
  select t.oid, t.typname, t.typtype, t.typbasetype, t.typcategory, t.typelem, t.typdelim, base.own
  from base join pg_type t on t.oid = base.typbasetype where base.typtype = 'd'
)
select own, oid, case when typcategory = 'A' and left(typname, 1) = '_' then typelem else 0 end from base
where typtype <> 'd'
"""


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    name: str
    type: TypeInfo
    primary_key: bool
    readers: frozenset[str]
    """Those of the roles asked about that may select the column."""


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A table as it is now, which may differ from when a change was written."""

    row_security: bool
    columns: tuple[ColumnFacts, ...]


async def connect(settings: BridgeSettings, name: str) -> Connection:
    """A connection in autocommit mode whose text output has the form that `values` reads."""
    return await AsyncConnection.connect(
        settings.db_url,
        autocommit=True,
        prepare_threshold=None,
        connect_timeout=max(1, round(settings.connect_timeout_s)),
        application_name=name,
        options=_STYLES,
    )


async def published_tables(connection: Connection, publication: str) -> frozenset[TableName]:
    cursor = await connection.execute(
        "select schemaname, tablename from pg_publication_tables where pubname = %s", [publication]
    )
    return frozenset((row[0], row[1]) for row in await cursor.fetchall())


async def bypasses_row_security(connection: Connection, roles: Sequence[str]) -> frozenset[str]:
    cursor = await connection.execute(
        "select rolname from pg_roles where rolname = any(%s) and (rolbypassrls or rolsuper)", [list(roles)]
    )
    return frozenset(row[0] for row in await cursor.fetchall())


async def can_see(
    connection: Connection, table: TableName, key: Sequence[tuple[str, str | None]], role: str, claims: str
) -> bool:
    """Whether row security lets `role` with these claims (JSON text) find the row with this primary key."""
    where = sql.SQL(" and ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in key
    )
    query = sql.SQL("select exists(select 1 from {} where {})").format(sql.Identifier(*table), where)
    async with connection.transaction():
        await connection.execute(
            "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)", [role, claims]
        )
        row = await (await connection.execute(query)).fetchone()
    return bool(row and row[0])


class Catalog:
    """Facts read over one connection. Types are remembered, tables are read anew each time they are asked for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._types: dict[int, TypeInfo] = {}

    async def table(self, oid: int, roles: Sequence[str]) -> TableFacts | None:
        """None where the table is gone. Raises `psycopg.Error`, also for a role that is gone."""
        cursor = await self._connection.execute(_COLUMNS, {"table": oid, "roles": list(roles)})
        rows = await cursor.fetchall()
        if not rows:
            return None
        columns = [
            ColumnFacts(name, await self.type(type_oid), primary_key, frozenset(readers))
            for name, type_oid, primary_key, _, readers in rows
        ]
        return TableFacts(rows[0][3], tuple(columns))

    async def type(self, oid: int) -> TypeInfo:
        known = self._types.get(oid)
        if known is None:
            known = self._types[oid] = await self._read_type(oid)
        return known

    async def _read_type(self, oid: int) -> TypeInfo:
        row = await (await self._connection.execute(_TYPE, [oid])).fetchone()
        if row is None:
            return TypeInfo("unknown")
        name, base, element = row
        if element:
            return TypeInfo(name, "array", await self.type(element))
        return TypeInfo(name, kind_of(base))


def describe_error(error: psycopg.Error) -> str:
    """`ERROR 42704 (undefined_object) role "x" does not exist`, as the real server words it."""
    name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in type(error).__name__)
    return f"ERROR {error.sqlstate} ({name.removeprefix('_')}) {error.diag.message_primary}"
