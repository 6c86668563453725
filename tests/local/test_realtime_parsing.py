"""The bridge's pure parts: pgoutput messages, framing, filters' syntax, the event rate, the outbox."""

from __future__ import annotations

import asyncio
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.local.realtime import filters, protocol
from daemon.local.realtime.elixir import inspect
from daemon.local.realtime.filters import Filter, FilterError
from daemon.local.realtime.outbox import Outbox, OutboxFullError
from daemon.local.realtime.pgoutput import (
    Begin,
    Cell,
    Column,
    Commit,
    Delete,
    Ignored,
    Insert,
    MalformedMessageError,
    Relation,
    Row,
    Unchanged,
    Update,
    parse,
)
from daemon.local.realtime.ratelimit import EventRate
from daemon.local.realtime.values import parse_array

_NO_NUL = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))
_CELLS = st.one_of(st.none(), st.just(Unchanged.TOAST), _NO_NUL)
_ROWS = st.lists(_CELLS, max_size=5).map(tuple)
_OIDS = st.integers(0, 2**32 - 1)


def _cell(cell: Cell) -> bytes:
    if cell is None:
        return b"n"
    if isinstance(cell, Unchanged):
        return b"u"
    return b"t" + struct.pack("!i", len(cell.encode())) + cell.encode()


def _row(row: Row) -> bytes:
    return struct.pack("!H", len(row)) + b"".join(_cell(cell) for cell in row)


@given(_OIDS, _ROWS, _ROWS, st.sampled_from("KO"))
def test_rows_survive_the_wire(oid: int, old: Row, new: Row, kind: str) -> None:
    head, before = struct.pack("!I", oid), kind.encode() + _row(old)
    assert parse(b"I" + head + b"N" + _row(new)) == Insert(oid, new)
    assert parse(b"U" + head + b"N" + _row(new)) == Update(oid, None, new)
    assert parse(b"U" + head + before + b"N" + _row(new)) == Update(oid, old, new)
    assert parse(b"D" + head + before) == Delete(oid, old)


@given(st.lists(st.tuples(_NO_NUL, _OIDS, st.booleans()), max_size=5), _NO_NUL)
def test_relations_and_transactions_survive_the_wire(columns: list[tuple[str, int, bool]], table: str) -> None:
    packed = b"".join(
        struct.pack("!B", identity) + name.encode() + b"\0" + struct.pack("!Ii", oid, -1)
        for name, oid, identity in columns
    )
    message = (
        b"R" + struct.pack("!I", 7) + b"public\0" + table.encode() + b"\0f" + struct.pack("!H", len(columns)) + packed
    )
    assert parse(message) == Relation(7, "public", table, "f", tuple(Column(*column) for column in columns))
    assert parse(b"B" + struct.pack("!QqI", 1, -5, 9)) == Begin(commit_us=-5, xid=9)
    assert parse(b"C" + struct.pack("!BQQq", 0, 1, 2, 3)) == Commit(commit_us=3)
    assert parse(b"T" + b"whatever") == Ignored("T")


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_a_message_or_malformed(data: bytes) -> None:
    try:
        parse(data)
    except MalformedMessageError:
        return


@given(_NO_NUL, _NO_NUL, st.one_of(st.none(), _NO_NUL), st.sampled_from(protocol.VERSIONS))
def test_frames_go_out_as_they_come_in(topic: str, event: str, ref: str | None, version: str) -> None:
    text = protocol.encode(protocol.Outbound(topic, event, '{"a":1.50}', ref, ref), version)
    decoded = protocol.decode(text, version)
    assert decoded is not None
    assert (decoded.topic, decoded.event, decoded.ref, decoded.payload) == (topic, event, ref, {"a": 1.5})
    assert decoded.join_ref == (ref if version == "2.0.0" else None)
    assert '{"a":1.50}' in text


@pytest.mark.parametrize("text", ["not json", "{}", "[1,2,3]", "[1,2,3,4,5]", '{"topic":1,"event":"x"}', "[" * 5000])
def test_garbage_is_no_frame(text: str) -> None:
    assert [protocol.decode(text, version) for version in protocol.VERSIONS] == [None, None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("  ", ()),
        ("status=eq.pending", (Filter("status", "eq", "pending", negate=False),)),
        ("a=not.eq.b.c=d", (Filter("a", "eq", "b.c=d", negate=True),)),
        ("a=in.(x,y), b=gt.5", (Filter("a", "in", "{x,y}", negate=False), Filter("b", "gt", "5", negate=False))),
        ('a=eq."x,y=eq.z"', (Filter("a", "eq", "x,y=eq.z", negate=False),)),
        ('a=in.("p,q","r)")', (Filter("a", "in", '{"p,q","r)"}', negate=False),)),
        ('a=eq."say \\"hi\\""', (Filter("a", "eq", 'say "hi"', negate=False),)),
        ('a=eq.5" tape,b=eq.1', (Filter("a", "eq", '5" tape', negate=False), Filter("b", "eq", "1", negate=False))),
    ],
)
def test_filters_are_parsed(text: str, expected: tuple[Filter, ...]) -> None:
    assert filters.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("undefined", '["undefined"]'),
        ("a=contains.x", '["contains", "x"]'),
        ("a=eq", '["eq"]'),
        ("a=eq.1,,b=eq.2", "filter must not contain empty segments (check for extra commas)"),
        ("a=in.x,y", "`in` filter value must be wrapped by parentheses"),
    ],
)
def test_bad_filters_are_refused_in_the_servers_words(text: str, message: str) -> None:
    with pytest.raises(FilterError) as caught:
        filters.parse(text)
    assert str(caught.value) == message


@given(_NO_NUL)
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    try:
        filters.parse(text)
    except FilterError:
        return


@given(_NO_NUL)
def test_any_text_is_an_array_or_refused(text: str) -> None:
    try:
        parse_array("{" + text + "}")
    except ValueError:
        return


def test_values_are_quoted_as_the_server_does() -> None:
    assert inspect({"b": None, "a": [True, 1, 'x"\\\n']}) == '%{"a" => [true, 1, "x\\"\\\\\\n"], "b" => nil}'


def test_a_burst_passes_and_what_follows_is_over_the_limit() -> None:
    """The course of a capture: 3000 rows at once, then silence; the sixth mean is the first below 100."""
    rate = EventRate(limit=100, bucket_s=5, buckets=12, now=0)
    rate.add(3000, now=1)
    assert not rate.exceeded(now=4.9)
    assert [rate.exceeded(now=seconds) for seconds in (5, 10, 15, 20, 25, 30)] == [True] * 6
    assert not rate.exceeded(now=35)


def test_the_rate_forgets_after_its_window() -> None:
    rate = EventRate(limit=100, bucket_s=5, buckets=12, now=0)
    rate.add(1_000_000, now=1)
    assert rate.exceeded(now=60)
    assert not rate.exceeded(now=65)
    rate.add(1_000_000, now=66)
    assert not rate.exceeded(now=100_000)


async def test_the_outbox_keeps_order_and_bounds() -> None:
    outbox = Outbox(max_frames=3, max_bytes=10)
    outbox.put("late", delay_s=0.05)
    outbox.put("é" * 3)
    with pytest.raises(OutboxFullError):
        outbox.put("x")
    before = asyncio.get_running_loop().time()
    assert [await outbox.get(), await outbox.get()] == ["late", "ééé"]
    assert asyncio.get_running_loop().time() - before >= 0.045
    outbox.put("x" * 10)
    assert await outbox.get() == "x" * 10


def test_a_close_carries_the_joins_ref() -> None:
    frame = protocol.close("realtime:a", "7")
    assert json.loads(protocol.encode(frame, "1.0.0"))["ref"] == "7"
    assert json.loads(protocol.encode(frame, "2.0.0"))[:2] == ["7", "7"]
