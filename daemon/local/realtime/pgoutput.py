"""The messages of PostgreSQL's logical replication output plugin `pgoutput`, protocol version 1, values as text.

Source: PostgreSQL documentation, "Logical Replication Message Formats". Pure: bytes in, values out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum


class Unchanged(Enum):
    """An out-of-line (TOAST) value that an UPDATE did not touch: the log does not hold it."""

    TOAST = "unchanged"


Cell = str | None | Unchanged
Row = tuple[Cell, ...]


class MalformedMessageError(ValueError):
    """Bytes that are no pgoutput message of protocol version 1."""


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type_oid: int
    identity: bool
    """Part of the replica identity; with identity FULL every column is."""


@dataclass(frozen=True, slots=True)
class Relation:
    oid: int
    schema: str
    table: str
    identity: str
    """`d` default, `n` nothing, `f` full, `i` index."""
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Begin:
    commit_us: int
    """Commit time, microseconds since 2000-01-01 UTC."""
    xid: int


@dataclass(frozen=True, slots=True)
class Commit:
    commit_us: int


@dataclass(frozen=True, slots=True)
class Insert:
    relation: int
    new: Row


@dataclass(frozen=True, slots=True)
class Update:
    relation: int
    old: Row | None
    """None where the identity did not change and is not FULL; under a key identity only key cells are meaningful."""
    new: Row


@dataclass(frozen=True, slots=True)
class Delete:
    relation: int
    old: Row


@dataclass(frozen=True, slots=True)
class Ignored:
    """A message that carries no row: truncate, type, origin."""

    kind: str


Message = Relation | Begin | Commit | Insert | Update | Delete | Ignored


class _Reader:
    """A cursor over one message; every read checks that the bytes are there."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        end = self._at + count
        if count < 0 or end > len(self._data):
            raise MalformedMessageError("The message ends too early.")
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def number(self, layout: str) -> int:
        value: int = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return value

    def text(self) -> str:
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise MalformedMessageError("A string has no end.")
        piece = self._data[self._at : end]
        self._at = end + 1
        return _decode(piece)

    def letter(self) -> str:
        return self.take(1).decode("latin-1")

    def row(self) -> Row:
        return tuple(self._cell() for _ in range(self.number("!H")))

    def _cell(self) -> Cell:
        match self.letter():
            case "n":
                return None
            case "u":
                return Unchanged.TOAST
            case "t":
                return _decode(self.take(self.number("!i")))
            case other:
                raise MalformedMessageError(f"Unknown cell kind {other!r}.")


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise MalformedMessageError("Text is not UTF-8.") from error


def parse(data: bytes) -> Message:
    """One message. Raises `MalformedMessageError`."""
    reader = _Reader(data)
    kind = reader.letter()
    parser = _PARSERS.get(kind)
    if parser is not None:
        return parser(reader)
    if kind in "TYOM":
        return Ignored(kind)
    raise MalformedMessageError(f"Unknown message kind {kind!r}.")


def _expect(reader: _Reader, letters: str) -> str:
    letter = reader.letter()
    if letter not in letters:
        raise MalformedMessageError(f"Expected one of {letters!r}, found {letter!r}.")
    return letter


def _begin(reader: _Reader) -> Begin:
    reader.take(8)
    return Begin(commit_us=reader.number("!q"), xid=reader.number("!I"))


def _commit(reader: _Reader) -> Commit:
    reader.take(1 + 8 + 8)
    return Commit(commit_us=reader.number("!q"))


def _insert(reader: _Reader) -> Insert:
    relation = reader.number("!I")
    _expect(reader, "N")
    return Insert(relation, reader.row())


def _delete(reader: _Reader) -> Delete:
    relation = reader.number("!I")
    _expect(reader, "KO")
    return Delete(relation, reader.row())


def _update(reader: _Reader) -> Update:
    relation = reader.number("!I")
    old = None
    if _expect(reader, "KON") != "N":
        old = reader.row()
        _expect(reader, "N")
    return Update(relation, old, reader.row())


def _relation(reader: _Reader) -> Relation:
    oid = reader.number("!I")
    schema = reader.text() or "pg_catalog"
    table = reader.text()
    identity = reader.letter()
    columns = []
    for _ in range(reader.number("!H")):
        flags = reader.number("!B")
        name = reader.text()
        columns.append(Column(name, reader.number("!I"), bool(flags & 1)))
        reader.take(4)
    return Relation(oid, schema, table, identity, tuple(columns))


_PARSERS: Mapping[str, Callable[[_Reader], Message]] = {
    "B": _begin,
    "C": _commit,
    "R": _relation,
    "I": _insert,
    "U": _update,
    "D": _delete,
}
