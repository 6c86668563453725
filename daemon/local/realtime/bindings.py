"""What a `phx_join` asks for: the bindings under `config.postgres_changes`, checked as far as text can tell."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

from daemon.local.realtime import filters
from daemon.local.realtime.elixir import inspect
from daemon.local.realtime.protocol import compact

MAX_BINDINGS = 100


class BindingError(ValueError):
    """A binding that can never be subscribed; the text goes into the `system` error frame."""


@dataclass(frozen=True, slots=True)
class Params:
    """A binding, understood. `*` in schema or table matches every published one."""

    event: str
    """INSERT, UPDATE, DELETE or `*`."""
    schema: str
    table: str
    filters: tuple[filters.Filter, ...]
    select: tuple[str, ...] | None

    def describe(self) -> str:
        """As it stands in the server's error messages."""
        conditions = [(item.column, item.operator, item.value, item.negate) for item in self.filters]
        select = None if self.select is None else list(self.select)
        return (
            f"event: {self.event}, schema: {self.schema}, table: {self.table}, "
            f"filters: {inspect(conditions)}, select: {inspect(select)}"
        )


@dataclass(frozen=True, slots=True)
class Binding:
    id: int
    """Equal for equal bindings in every channel and client."""
    raw: dict[str, Any]

    def echo(self) -> dict[str, Any]:
        return {"id": self.id, **self.raw}

    def params(self) -> Params:
        """Raises `BindingError`."""
        return understand(self.raw)


def from_join(payload: dict[str, Any]) -> tuple[Binding, ...]:
    """The bindings of a join. Whatever is no list of objects counts as none, as on the real server."""
    config = payload.get("config")
    wanted = config.get("postgres_changes") if isinstance(config, dict) else None
    if not isinstance(wanted, list):
        return ()
    return tuple(_binding(item) for item in wanted[:MAX_BINDINGS] if isinstance(item, dict))


def from_topic(name: str) -> tuple[Binding, ...]:
    """The one binding of an old-style topic, `schema:table:filter`."""
    keys = ("schema", "table", "filter")
    return (_binding(dict(zip(keys, name.split(":", 2), strict=False))),)


def _binding(raw: dict[str, Any]) -> Binding:
    canonical = compact({key: raw[key] for key in sorted(raw)})
    return Binding(zlib.crc32(canonical.encode()) & 0x7FFFFFF, raw)


def understand(raw: dict[str, Any]) -> Params:
    """Raises `BindingError`."""
    select = _select(raw)
    schema, table, condition = raw.get("schema"), raw.get("table"), raw.get("filter")
    event = str(raw.get("event")).upper()
    event = event if event in ("INSERT", "UPDATE", "DELETE") else "*"
    given = {key for key in ("schema", "table", "filter") if key in raw}
    parsed: tuple[filters.Filter, ...] = ()
    if given == {"schema", "table", "filter"} and _texts(schema, table, condition):
        try:
            parsed = filters.parse(str(condition))
        except filters.FilterError as error:
            raise BindingError(f"Error parsing `filter` params: {error}") from None
    elif given == {"schema"} and _texts(schema):
        table = "*"
    elif given == {"table"} and _texts(table):
        schema = "public"
    elif given != {"schema", "table"} or not _texts(schema, table):
        raise BindingError(
            "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: "
            + inspect(raw)
        )
    if select is not None and "*" in (schema, table):
        raise BindingError(
            "Column selection is not supported for wildcard subscriptions. Provide an explicit schema and table name."
        )
    return Params(event, str(schema), str(table), parsed, select)


def _texts(*values: object) -> bool:
    return all(isinstance(value, str) for value in values)


def _select(raw: dict[str, Any]) -> tuple[str, ...] | None:
    wanted = raw.get("select")
    if isinstance(wanted, str):
        raise BindingError(
            'Error parsing `select` params: expected a list of column name strings, e.g. select: ["col1", "col2"]'
        )
    if not isinstance(wanted, list):
        return None
    return tuple(item for item in wanted if isinstance(item, str)) or None
