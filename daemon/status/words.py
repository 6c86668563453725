"""Figures and times as people say them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_STEPS = ((90, 1, "s"), (5400, 60, "min"), (129_600, 3600, "h"))


def lasting(seconds: float) -> str:
    """A stretch of time, such as ``12 s`` or ``3 h``."""
    seconds = max(0.0, seconds)
    for below, unit, name in _STEPS:
        if seconds < below:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86_400:.0f} days"


def ago(moment: datetime | str | None, now: datetime) -> str:
    """How long ago something was."""
    found = when(moment)
    return f"{lasting((now - found).total_seconds())} ago" if found else "never yet"


def when(moment: datetime | str | None) -> datetime | None:
    """A time of the database; None for what is none."""
    if not moment or isinstance(moment, datetime):
        return moment or None
    try:
        found = datetime.fromisoformat(moment)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def minute(moment: datetime | str | None) -> str:
    """To the minute, in UTC: ``2026-11-23 04:05``."""
    found = when(moment)
    return f"{found.astimezone(UTC):%Y-%m-%d %H:%M}" if found else "?"


def percent(rate: float) -> str:
    """A fraction, such as ``12.3 %``."""
    return f"{rate * 100:.1f} %"


def device_memory(state: Mapping[str, Any]) -> str:
    """Of a daemon's graphics card when its last batch was done, such as ``, 12.5 of 80.0 GB in use``; else nothing."""
    told = state.get("memory")
    if not isinstance(told, Mapping) or not all(isinstance(told.get(name), int) for name in ("free", "total")):
        return ""
    return f", {(told['total'] - told['free']) / 1e9:.1f} of {told['total'] / 1e9:.1f} GB in use"


def counted(number: int, thing: str) -> str:
    """Such as ``1 clip`` and ``2,000 clips``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
