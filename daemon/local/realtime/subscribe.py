"""From a binding to a subscription: the checks that need the database."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from daemon.local.realtime import catalog, filters
from daemon.local.realtime.bindings import Binding, BindingError, Params
from daemon.local.realtime.catalog import Catalog, ColumnFacts, Connection, TableName
from daemon.local.realtime.filters import Condition, Filter

_MAX_IN_VALUES = 100
_RAISED = "ERROR P0001 (raise_exception) "


@dataclass(frozen=True, slots=True)
class Target:
    """A binding resolved against the publication as it was at the time of subscribing."""

    id: int
    event: str
    select: tuple[str, ...] | None
    tables: dict[TableName, tuple[Condition, ...]]
    """The published tables it covers, each with its conditions."""

    def matches(self, kind: str, table: TableName) -> bool:
        return self.event in ("*", kind) and table in self.tables


class _RejectedError(Exception):
    """A parameter that PostgreSQL would refuse; the text as the real server words it."""


async def resolve(
    connection: Connection, publication: str, bindings: Sequence[Binding], role: str
) -> tuple[Target, ...]:
    """All bindings of a channel, or `BindingError` for the first bad one: one bad binding cancels them all.

    Raises `psycopg.OperationalError` where the database is away.
    """
    understood = [(binding, binding.params()) for binding in bindings]
    published = await catalog.published_tables(connection, publication)
    targets = []
    for binding, params in understood:
        covered = [name for name in sorted(published) if _covers(params, name)]
        if not covered:
            raise BindingError(
                "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the "
                f"given connect parameters: [{params.describe()}]"
            )
        try:
            tables = {name: await _conditions(connection, name, params, role) for name in covered}
        except psycopg.OperationalError:
            raise
        except (_RejectedError, psycopg.Error) as error:
            text = catalog.describe_error(error) if isinstance(error, psycopg.Error) else str(error)
            raise BindingError(
                "Unable to subscribe to changes with given parameters. An exception happened so please check your "
                f"connect parameters: [{params.describe()}]. Exception: {text}"
            ) from None
        targets.append(Target(binding.id, params.event, params.select, tables))
    return tuple(targets)


def _covers(params: Params, name: TableName) -> bool:
    return params.schema in ("*", name[0]) and params.table in ("*", name[1])


async def _conditions(connection: Connection, name: TableName, params: Params, role: str) -> tuple[Condition, ...]:
    cursor = await connection.execute(
        "select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace "
        "where n.nspname = %s and c.relname = %s",
        list(name),
    )
    row = await cursor.fetchone()
    facts = await Catalog(connection).table(row[0], [role]) if row else None
    readable = {column.name: column for column in facts.columns if role in column.readers} if facts else {}
    for selected in params.select or ():
        if selected not in readable:
            raise _RejectedError(f"{_RAISED}invalid column for select {selected}")
    conditions = []
    for item in params.filters:
        column = readable.get(item.column)
        if column is None:
            raise _RejectedError(f"{_RAISED}invalid column for filter {item.column}")
        conditions.append(await _condition(connection, item, column))
    return tuple(conditions)


async def _condition(connection: Connection, item: Filter, column: ColumnFacts) -> Condition:
    """The filter with its values in PostgreSQL's own output form. Raises `psycopg.Error` for what cannot be cast."""
    values: tuple[str | None, ...] = (item.value,)
    if item.operator == "is":
        if item.value not in ("null", "true", "false", "unknown"):
            raise _RejectedError(f"{_RAISED}invalid value for is filter {item.value}")
    elif item.operator in ("match", "imatch"):
        await connection.execute("select '' ~ %s", [item.value])
        try:
            re.compile(item.value)
        except re.error as error:
            raise _RejectedError(
                f"ERROR 2201B (invalid_regular_expression) invalid regular expression: {error}"
            ) from None
    elif item.operator == "in":
        values = await _outputs(connection, sql.SQL("unnest({}::{}[])"), item.value, column.type.name)
        if len(values) > _MAX_IN_VALUES:
            raise _RejectedError(f"{_RAISED}too many values for `in` filter. Maximum {_MAX_IN_VALUES}")
    elif item.operator not in ("like", "ilike"):
        values = await _outputs(connection, sql.SQL("(select {}::{})"), item.value, column.type.name)
    return filters.Condition(item.column, item.operator, values, item.negate, column.type.kind)


async def _outputs(connection: Connection, source: sql.SQL, value: str, type_name: str) -> tuple[str | None, ...]:
    """The values of `source` as the log has them: format() goes through the type's output function, ::text may not."""
    rows = source.format(sql.Literal(value), sql.Identifier(type_name))
    query = sql.SQL("select case when v is not null then format('%s', v) end from {} as u(v)").format(rows)
    return tuple(row[0] for row in await (await connection.execute(query)).fetchall())
