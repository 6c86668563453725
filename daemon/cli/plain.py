"""What others wrote, for a terminal: as text, never obeyed as markup or as a control sequence."""

from __future__ import annotations

from rich.text import Text


def clean(value: object) -> str:
    """Without any character that a terminal would obey."""
    return "".join(c if c.isprintable() else "�" for c in str(value))


def text(value: object, style: str = "") -> Text:
    """As text that `rich` does not read for markup."""
    return Text(clean(value), style)


def moment(value: object) -> str:
    """A time of the database to the minute: ``2026-11-23 04:05``."""
    return clean(value or "?").replace("T", " ")[:16]
