"""What this daemon knows of itself, without asking anybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class FeedHere:
    """What comes of listening."""

    state: str
    reason: str | None
    """Why it is not live, in words."""
    since: datetime
    heard_at: datetime | None
    """When somebody's change of a clip was last heard."""
    proven_at: datetime | None
    """When a change of this daemon's own last came back."""


@dataclass(frozen=True, slots=True)
class Here:
    """One look at this process."""

    worker: str
    started_at: datetime
    doing: str
    """In a line, as the service manager hears it."""
    hung: str = ""
    """What hangs; empty while nothing does."""
    lag_s: float = 0.0
    """The event loop's worst lateness of late."""
    tasks: int = 0
    ready: bool = False
    """The model is in memory, and the queue has been looked at."""
    version: int | None = None
    """The version in memory."""
    model: Mapping[str, Any] = field(default_factory=dict)
    feed: FeedHere | None = None
    """None where Realtime is switched off, or not yet asked."""
    written: int = 0
    dropped: int = 0
    failed: int = 0
    busy: frozenset[str] = frozenset()
    """Lanes."""
    blocked: str | None = None
    """Why nothing is drafted, in words."""
    trouble: str = ""
    """What keeps this daemon from asking the database, in words."""
    training: tuple[int, Mapping[str, Any]] | None = None
    """The version that is being made here, and how far it is."""
