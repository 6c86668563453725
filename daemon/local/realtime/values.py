"""PostgreSQL's text output of a value -> JSON text as `to_jsonb` and `jsonb::text` would write it. Pure.

Numbers stay text all the way: `1.50` inside a jsonb document keeps its scale, and a float8 of 1e22 comes out in full.
Composite, range and other rare types stay strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

_BY_OID = {
    16: "bool",
    20: "number",
    21: "number",
    23: "number",
    700: "float",
    701: "float",
    1700: "number",
    114: "json",
    3802: "jsonb",
    1114: "timestamp",
    1184: "timestamptz",
}
_NOT_FINITE = {"NaN", "Infinity", "-Infinity"}
_SHORT_OFFSET = re.compile(r"([+-]\d\d)(?=$| BC$)")


@dataclass(frozen=True, slots=True)
class TypeInfo:
    """What has to be known about a column's type."""

    name: str
    """`pg_type.typname`, as it stands in a frame's `columns`: `uuid`, `float8`, `_text`."""
    kind: str = "text"
    """bool, number, float, json, jsonb, timestamp, timestamptz, array or text."""
    element: TypeInfo | None = None
    delimiter: str = ","


def kind_of(base_oid: int) -> str:
    return _BY_OID.get(base_oid, "text")


def to_json(text: str, info: TypeInfo) -> str:
    """JSON text of one value that is not NULL."""
    match info.kind:
        case "number" | "float" if text in _NOT_FINITE:
            result = "null"
        case "float":
            result = _plain(text)
        case "number" | "jsonb":
            result = text
        case "bool":
            result = "true" if text == "t" else "false"
        case "json":
            result = _dump(json.loads(text, parse_int=Decimal, parse_float=Decimal))
        case "timestamp":
            result = string(text.replace(" ", "T", 1))
        case "timestamptz":
            result = string(_SHORT_OFFSET.sub(r"\1:00", text.replace(" ", "T", 1)))
        case "array":
            assert info.element is not None
            result = _array(parse_array(text, info.delimiter), info.element)
        case _:
            result = string(text)
    return result


def string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def object_text(items: Iterable[tuple[str, str]]) -> str:
    """A JSON object from names and JSON texts, in jsonb's key order: shorter keys first, then by octets."""
    ordered = sorted(items, key=lambda item: (len(item[0].encode()), item[0].encode()))
    return "{" + ", ".join(f"{string(name)}: {value}" for name, value in ordered) + "}"


def _plain(text: str) -> str:
    number = Decimal(text)
    return format(number, "f") if number else "0"


def _dump(value: Any) -> str:
    if isinstance(value, dict):
        return object_text((name, _dump(item)) for name, item in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(_dump(item) for item in value) + "]"
    if isinstance(value, Decimal):
        return format(value, "f")
    return json.dumps(value, ensure_ascii=False)


Nested = str | None | list["Nested"]


def _array(items: list[Nested], element: TypeInfo) -> str:
    parts = []
    for item in items:
        if item is None:
            parts.append("null")
        elif isinstance(item, list):
            parts.append(_array(item, element))
        else:
            parts.append(to_json(item, element))
    return "[" + ", ".join(parts) + "]"


def parse_array(text: str, delimiter: str = ",") -> list[Nested]:
    """The elements of an array literal such as `{a,"b c",NULL,{..}}`, still as text. Raises ValueError."""
    start = text.find("{")
    if start < 0:
        raise ValueError("An array literal starts with a brace.")
    items, end = _parse_items(text, start + 1, delimiter)
    if end != len(text):
        raise ValueError("Something follows the array literal.")
    return items


def _parse_items(text: str, at: int, delimiter: str) -> tuple[list[Nested], int]:
    items: list[Nested] = []
    while at < len(text):
        if text[at] == "}":
            return items, at + 1
        if text[at] == delimiter:
            at += 1
        elif text[at] == "{":
            inner, at = _parse_items(text, at + 1, delimiter)
            items.append(inner)
        elif text[at] == '"':
            quoted, at = _parse_quoted(text, at + 1)
            items.append(quoted)
        else:
            match = re.compile(rf"(?:\\.|[^{re.escape(delimiter)}{{}}\\])+", re.DOTALL).match(text, at)
            if match is None:
                break
            at = match.end()
            word = re.sub(r"\\(.)", r"\1", match.group(), flags=re.DOTALL)
            items.append(None if word == "NULL" else word)
    raise ValueError("The array literal has no end.")


def _parse_quoted(text: str, at: int) -> tuple[str, int]:
    match = re.compile(r'((?:\\.|[^"\\])*)"', re.DOTALL).match(text, at)
    if match is None:
        raise ValueError("A quoted element has no end.")
    return re.sub(r"\\(.)", r"\1", match.group(1), flags=re.DOTALL), match.end()
