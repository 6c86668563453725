"""Values and filters, judged by PostgreSQL itself."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from daemon.local.realtime.filters import Condition, judge
from daemon.local.realtime.values import TypeInfo, to_json
from tests.local.realtime_support import Database

_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)
_ASCII = st.text("aAbB%_.*\\+", max_size=6)
_FLOATS = st.floats(width=64).map(repr).map(lambda text: text.replace("inf", "Infinity"))
_MOMENTS = st.sampled_from(
    [
        "2026-01-02 03:04:05+00",
        "2026-01-02 03:04:05.1+00",
        "2026-01-02 05:04:05+02",
        "infinity",
        "1999-12-31 23:59:59+00",
    ]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXT, lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner)
)
_oracle = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def ask(realtime_server: Database) -> Any:
    with realtime_server.connect() as connection:
        yield lambda query: connection.execute(query).fetchone()


@_oracle
@given(
    st.one_of(
        st.tuples(st.just("float8"), st.floats(allow_nan=False, allow_infinity=False).map(repr)),
        st.tuples(st.just("numeric"), st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str)),
        st.tuples(st.just("bool"), st.sampled_from(["t", "f"])),
        st.tuples(st.just("text"), _TEXT),
        st.tuples(st.just("timestamptz"), _MOMENTS),
        st.tuples(st.just("timestamp"), _MOMENTS.map(lambda text: text.split("+")[0])),
        st.tuples(st.just("jsonb"), _JSON),
        st.tuples(st.just("json"), _JSON),
    )
)
def test_one_value_becomes_the_json_that_postgresql_makes(ask: Any, case: tuple[str, Any]) -> None:
    name, value = case
    literal = psycopg.types.json.Jsonb(value) if name.startswith("json") else value
    query = sql.SQL("select format('%s', v), to_jsonb(v)::text from (select {}::{} as v) t").format(
        sql.Literal(literal), sql.Identifier(name)
    )
    try:
        text, expected = ask(query)
    except psycopg.errors.UntranslatableCharacter:
        return
    kind = {"float8": "float", "numeric": "number"}.get(name, name)
    assert to_json(text, TypeInfo(name, kind)) == expected


@_oracle
@given(st.lists(st.lists(st.one_of(st.none(), _TEXT), min_size=2, max_size=2), min_size=1, max_size=3))
def test_arrays_become_the_json_that_postgresql_makes(ask: Any, value: list[list[str | None]]) -> None:
    for array in (value, value[0]):
        text, expected = ask(
            sql.SQL("select format('%s', v), to_jsonb(v)::text from (select {}::text[] v) t").format(array)
        )
        assert to_json(text, TypeInfo("_text", "array", TypeInfo("text"))) == expected


def test_what_is_not_finite_becomes_null() -> None:
    for text in ("NaN", "Infinity", "-Infinity"):
        assert to_json(text, TypeInfo("float8", "float")) == "null"


_COMPARE = {"eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">=", "isdistinct": "is distinct from"}


@_oracle
@given(
    st.sampled_from(sorted(_COMPARE)),
    st.booleans(),
    st.one_of(
        st.tuples(st.just("float8"), st.one_of(st.none(), _FLOATS), _FLOATS),
        st.tuples(st.just("timestamptz"), st.one_of(st.none(), _MOMENTS), _MOMENTS),
        st.tuples(st.just("text"), st.one_of(st.none(), _ASCII), _ASCII),
    ),
)
def test_comparisons_agree_with_postgresql(
    ask: Any, operator: str, negate: bool, case: tuple[str, str | None, str]
) -> None:
    name, cell, value = case
    query = sql.SQL(
        "select a::text, b::text, coalesce((a {} b) <> {}, false) from (select {}::{} a, {}::{} b) t"
    ).format(sql.SQL(_COMPARE[operator]), negate, cell, sql.Identifier(name), value, sql.Identifier(name))
    left, right, expected = ask(query)
    kind = "float" if name == "float8" else name
    assert judge(Condition("c", operator, (right,), negate, kind), left) is expected


@_oracle
@given(st.sampled_from(["like", "ilike"]), st.booleans(), _ASCII, _ASCII)
def test_patterns_agree_with_postgresql(ask: Any, operator: str, negate: bool, cell: str, pattern: str) -> None:
    query = sql.SQL("select ({} {} {}) <> {}").format(cell, sql.SQL(operator), pattern, negate)
    try:
        (expected,) = ask(query)
    except psycopg.errors.InvalidEscapeSequence:
        return
    assert judge(Condition("c", operator, (pattern,), negate, "text"), cell) is expected


@pytest.mark.parametrize(
    ("operator", "values", "cell", "expected"),
    [
        ("in", ("1", "2"), "2", True),
        ("in", ("1", "2"), "3", False),
        ("in", ("1", None), "3", False),
        ("in", (), "3", False),
        ("is", ("null",), None, True),
        ("is", ("null",), "t", False),
        ("is", ("true",), "t", True),
        ("is", ("false",), "t", False),
        ("match", ("^a.c$",), "abc", True),
        ("match", ("^A",), "abc", False),
        ("imatch", ("^A",), "abc", True),
        ("eq", ("1",), None, False),
    ],
)
def test_the_other_operators(
    operator: str, values: tuple[str | None, ...], cell: str | None, *, expected: bool
) -> None:
    assert judge(Condition("c", operator, values, negate=False, kind="text"), cell) is expected
