"""Filters of a subscription: `status=eq.pending,priority=gte.0.5`. Parsing and judging, both pure.

Comparisons follow the column's type: numbers as numbers, timestamps as moments, everything else by code point.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from daemon.local.realtime.elixir import inspect

OPERATORS = ("eq", "neq", "lt", "lte", "gt", "gte", "in", "like", "ilike", "is", "match", "imatch", "isdistinct")


class FilterError(ValueError):
    """A filter that cannot be parsed; the text is what stands after "Error parsing `filter` params: "."""


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition as the client wrote it. The value of `in` is an array literal: `{a,b}`."""

    column: str
    operator: str
    value: str
    negate: bool


@dataclass(frozen=True, slots=True)
class Condition:
    """A filter that is ready to judge rows: its values went through the column's type in PostgreSQL."""

    column: str
    operator: str
    values: tuple[str | None, ...]
    """One value; any number of them for `in`."""
    negate: bool
    kind: str
    """The column's `TypeInfo.kind`."""


def parse(text: str) -> tuple[Filter, ...]:
    """The conditions in `text`, all of which must hold. Raises `FilterError`."""
    if not text.strip():
        return ()
    return tuple(_segment(part.strip()) for part in _split(text.strip()))


def _split(text: str) -> list[str]:
    """Cut at commas outside parentheses and outside quotes; a quote opens after `.`, `(` or `,` only."""
    parts, current, depth, quoted, previous = [], "", 0, False, ""
    characters = iter(text)
    for character in characters:
        if quoted:
            current += character
            if character == "\\":
                current += next(characters, "")
            elif character == '"':
                quoted = False
        elif character == "," and depth == 0:
            parts.append(current)
            current, previous = "", ""
            continue
        else:
            quoted = character == '"' and previous in (".", "(", ",")
            depth = max(0, depth + (character == "(") - (character == ")"))
            current += character
        previous = character
    return [*parts, current]


def _segment(text: str) -> Filter:
    if not text:
        raise FilterError("filter must not contain empty segments (check for extra commas)")
    column, equals, rest = text.partition("=")
    if not equals:
        raise FilterError(inspect([column]))
    negate = rest.startswith("not.")
    name, dot, value = rest.removeprefix("not.").partition(".")
    if not dot:
        raise FilterError(inspect([name]))
    if name not in OPERATORS:
        raise FilterError(inspect([name, value]))
    if name != "in":
        return Filter(column, name, _unquote(value), negate)
    if not (len(value) >= 2 and value[0] == "(" and value[-1] == ")"):
        raise FilterError("`in` filter value must be wrapped by parentheses")
    return Filter(column, name, "{" + value[1:-1] + "}", negate)


def _unquote(value: str) -> str:
    match = re.fullmatch(r'"((?:\\.|[^"\\])*)"', value, re.DOTALL)
    return re.sub(r"\\(.)", r"\1", match.group(1), flags=re.DOTALL) if match else value


def judge(condition: Condition, cell: str | None) -> bool:
    """Whether a cell (PostgreSQL text, None for NULL) meets the condition; what SQL calls unknown is no."""
    verdict = _verdict(condition, cell)
    return False if verdict is None else verdict is not condition.negate


def _verdict(condition: Condition, cell: str | None) -> bool | None:
    value = condition.values[0] if condition.values else None
    if condition.operator == "is":
        return _is(value, cell)
    if condition.operator == "isdistinct":
        return cell is None or _key(cell, condition.kind) != _key(value or "", condition.kind)
    if cell is None:
        return None
    if condition.operator == "in":
        own = _key(cell, condition.kind)
        found = any(own == _key(item, condition.kind) for item in condition.values if item is not None)
        return found or (None if None in condition.values else False)
    text_test = _TEXT_TESTS.get(condition.operator)
    if text_test is not None:
        return text_test(value or "", cell)
    return bool(_COMPARISONS[condition.operator](_key(cell, condition.kind), _key(value or "", condition.kind)))


def _is(value: str | None, cell: str | None) -> bool:
    if value in ("null", "unknown"):
        return cell is None
    return cell is not None and (cell == "t") == (value == "true")


def _key(text: str, kind: str) -> Any:
    """Something that orders as PostgreSQL orders the type: NaN after every number, infinities at the ends."""
    if kind in ("number", "float"):
        number = Decimal(text)
        return (1, Decimal(0)) if number.is_nan() else (0, number)
    if kind in ("timestamp", "timestamptz"):
        if text in ("infinity", "-infinity"):
            return (1 if text == "infinity" else -1, 0.0)
        moment = datetime.fromisoformat(text)
        # A naive moment is compared with naive ones only: any fixed zone will do.
        return (0, (moment - datetime(1970, 1, 1, tzinfo=moment.tzinfo)).total_seconds())
    return text


def like(pattern: str, text: str, *, ignore_case: bool = False) -> bool:
    """SQL's LIKE: `%` any run, `_` any character, backslash escapes."""
    expression = ""
    characters = iter(pattern)
    for character in characters:
        if character == "%":
            expression += ".*"
        elif character == "_":
            expression += "."
        else:
            expression += re.escape(next(characters, "\\") if character == "\\" else character)
    return re.fullmatch(expression, text, re.DOTALL | (re.IGNORECASE if ignore_case else 0)) is not None


_COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "neq": operator.ne,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}
_TEXT_TESTS: Mapping[str, Callable[[str, str], bool]] = {
    "like": like,
    "ilike": lambda pattern, text: like(pattern, text, ignore_case=True),
    "match": lambda pattern, text: re.search(pattern, text) is not None,
    "imatch": lambda pattern, text: re.search(pattern, text, re.IGNORECASE) is not None,
}
