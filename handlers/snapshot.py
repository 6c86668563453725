"""The only input of a decision."""

from __future__ import annotations

from dataclasses import dataclass

from handlers.commands import Lane


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The truth as one read found it, and what this process is doing."""

    live: int | None
    """The model version that the database says is live."""
    loaded: int | None
    """The version in this process's memory."""
    ready: int
    """Clips that want a draft now. Counting stops at 1,000."""
    busy: frozenset[Lane] = frozenset()
