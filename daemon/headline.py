"""What the daemon is doing, in one line: ``systemctl status`` shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.snapshot import Snapshot

_COUNTED = 1000
"""Counting stops there."""
_PHASES = {
    "data": "gathering data for",
    "waiting for machines": "waiting for machines for",
    "features": "preparing",
    "training": "training",
    "evaluating": "trying",
    "saving": "saving",
}


def headline(
    seen: Snapshot | None,
    *,
    trouble: str = "",
    blocked: str | None = None,
    feed: str = "live",
    training: tuple[int, Mapping[str, Any]] | None = None,
) -> str:
    """Such as "live v7, 12 pending, training v8 43 %".

    `trouble`: what keeps the daemon from asking the database. `blocked`: why nothing is drafted. `feed`: the state of
    Realtime. `training`: the version that is being made here and its progress (``phase``, ``step``, ``steps``).
    """
    parts = [trouble] if trouble else []
    if seen:
        parts.append(f"live v{seen.live}" if seen.live else "no version is live")
        parts.append(f"{seen.ready:,}{'+' if seen.ready >= _COUNTED else ''} pending")
    if blocked:
        parts.append(f"drafting nothing ({blocked.rstrip('.')})")
    if training:
        parts.append(_progress(*training))
    if feed not in ("live", "off"):
        parts.append(f"Realtime {feed}")
    return ", ".join(parts)


def _progress(version: int, detail: Mapping[str, Any]) -> str:
    what = f"{_PHASES.get(str(detail.get('phase')), 'training')} v{version}"
    step, steps = detail.get("step"), detail.get("steps")
    return f"{what} {100 * step // steps} %" if step is not None and steps else what
