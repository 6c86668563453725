"""One changed row -> the `data` object of a frame, for one role and one selection of columns. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from daemon.local.realtime import values
from daemon.local.realtime.catalog import TableFacts, TableName
from daemon.local.realtime.pgoutput import Cell, Delete, Insert, Relation, Row, Unchanged, Update
from daemon.local.realtime.protocol import compact

UNAUTHORIZED = "Error 401: Unauthorized"
NO_PRIMARY_KEY = "Error 400: Bad Request, no primary key"
TOO_LARGE = "Error 413: Payload Too Large"
_SHORT = 64
"""Octets of JSON text that a field may have in a change that is too large."""
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

Cells = dict[str, str | None]
"""Column name to PostgreSQL text; a column that the log does not hold is not there."""


@dataclass(frozen=True, slots=True)
class Change:
    """A row-level change, in terms of column names."""

    kind: str
    """INSERT, UPDATE or DELETE."""
    table: TableName
    relation: int
    new: Cells
    old: Cells
    """The replica identity: the primary key, or the whole row where identity is FULL."""
    commit_us: int

    def judged(self) -> Cells:
        """The row that filters look at."""
        return self.old if self.kind == "DELETE" else self.new


def from_message(message: Insert | Update | Delete, relation: Relation, commit_us: int) -> Change:
    table = (relation.schema, relation.table)
    if isinstance(message, Insert):
        return Change("INSERT", table, relation.oid, _cells(relation, message.new), {}, commit_us)
    if isinstance(message, Delete):
        return Change("DELETE", table, relation.oid, {}, _identity(relation, message.old), commit_us)
    new = _cells(relation, message.new)
    old = _identity(relation, message.old if message.old is not None else message.new)
    # Only identity FULL knows the value of a column that was stored out of line and not touched.
    return Change("UPDATE", table, relation.oid, {**old, **new} if relation.identity == "f" else new, old, commit_us)


def _cells(relation: Relation, row: Row) -> Cells:
    return dict(_known(zip((column.name for column in relation.columns), row, strict=True)))


def _identity(relation: Relation, row: Row) -> Cells:
    pairs = zip(relation.columns, row, strict=True)
    return dict(_known((column.name, cell) for column, cell in pairs if column.identity))


def _known(pairs: Iterable[tuple[str, Cell]]) -> Iterable[tuple[str, str | None]]:
    return ((name, cell) for name, cell in pairs if not isinstance(cell, Unchanged))


def _stamp(commit_us: int) -> str:
    moment = _EPOCH + timedelta(microseconds=commit_us)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


class Renderer:
    """Renders one change; the JSON text of each value is made once, whoever reads it."""

    def __init__(self, change: Change, facts: TableFacts, max_bytes: int) -> None:
        self._change = change
        self._facts = facts
        self._new = self._texts(change.new)
        self._old = self._texts(change.old)
        self._too_large = self._octets() > max_bytes

    def _texts(self, cells: Cells) -> dict[str, str | None]:
        return {
            column.name: None if (cell := cells[column.name]) is None else values.to_json(cell, column.type)
            for column in self._facts.columns
            if column.name in cells
        }

    def _octets(self) -> int:
        """About the size that the change has in the real server's log format, old and new row together."""
        return 200 + sum(
            60 + len(name) + len((text or "null").encode())
            for row in (self._new, self._old)
            for name, text in row.items()
        )

    def error(self, role: str) -> str | None:
        """Why `role` gets an empty frame instead of the row; None where it gets the row."""
        keys = [column for column in self._facts.columns if column.primary_key]
        if self._change.kind == "DELETE":
            return None
        if not keys:
            return NO_PRIMARY_KEY
        return None if all(role in column.readers for column in keys) else UNAUTHORIZED

    def render(self, role: str, select: tuple[str, ...] | None) -> str:
        """The JSON text of `data`."""
        error = self.error(role)
        if error is not None:
            return self._assemble("{}", [], error, stamp=False, old="{}")
        shown = [
            column
            for column in self._facts.columns
            if role in column.readers and (select is None or column.primary_key or column.name in select)
        ]
        names = {column.name for column in shown}
        keys = {column.name for column in shown if column.primary_key}
        # Row security cannot be asked about a row that is gone, so such a row shows its key alone.
        guarded = self._change.kind == "DELETE" and self._facts.row_security
        columns = [{"name": column.name, "type": column.type.name} for column in shown]
        return self._assemble(
            self._object(self._new, names),
            columns,
            TOO_LARGE if self._too_large else None,
            stamp=True,
            old=self._object(self._old, keys if guarded else names),
        )

    def _object(self, texts: dict[str, str | None], names: set[str]) -> str:
        items = ((name, text) for name, text in texts.items() if name in names)
        if self._too_large:
            return values.object_text(
                (name, text) for name, text in items if text is not None and len(text.encode()) <= _SHORT
            )
        return values.object_text((name, text or "null") for name, text in items)

    def _assemble(self, record: str, columns: list[dict[str, str]], error: str | None, *, stamp: bool, old: str) -> str:
        change = self._change
        parts = [f'"table":{compact(change.table[1])}', f'"type":"{change.kind}"']
        if change.kind != "DELETE":
            parts.append(f'"record":{record}')
        parts.append(f'"columns":{compact(columns)}')
        parts.append(f'"errors":{compact([error] if error else None)}')
        parts.append(f'"schema":{compact(change.table[0])}')
        parts.append(f'"commit_timestamp":{compact(_stamp(change.commit_us) if stamp else None)}')
        if change.kind != "INSERT":
            parts.append(f'"old_record":{old}')
        return "{" + ",".join(parts) + "}"
