"""Intentions, in the imperative. Each says which lane it occupies: a lane does one thing at a time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar


class Lane(Enum):
    """What can be busy."""

    DRAFT = "draft"
    """The thread that owns the model."""
    WORK = "work"
    """The child process that trains or evaluates, and what comes of it."""


@dataclass(frozen=True, slots=True)
class Draft:
    """Draft what is ready, for at most `batches` batches; then the same questions are asked again."""

    lane: ClassVar[Lane] = Lane.DRAFT
    version: int
    batches: int


@dataclass(frozen=True, slots=True)
class Swap:
    """Load the live version in place of the one in memory."""

    lane: ClassVar[Lane] = Lane.DRAFT
    version: int


@dataclass(frozen=True, slots=True)
class Train:
    """Begin a run if there are still so many new corrections, or go on with one that lost its worker."""

    lane: ClassVar[Lane] = Lane.WORK
    bar_clips: int
    bar_minutes: float
    """Either is enough."""
    retry_of: int | None = None
    """So is this: a run that failed, if it is still the last."""


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Compare a candidate with the live version on held-out recordings."""

    lane: ClassVar[Lane] = Lane.WORK
    version: int
    against: int


@dataclass(frozen=True, slots=True)
class Promote:
    """Make a candidate the live version; `reason` is the verdict in words."""

    lane: ClassVar[Lane] = Lane.WORK
    version: int
    against: int
    reason: str


@dataclass(frozen=True, slots=True)
class Reject:
    """Turn a candidate down; `reason` is the verdict in words."""

    lane: ClassVar[Lane] = Lane.WORK
    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class RollBack:
    """Make live again what was live before `version`, whose drafts need more edits; `reason` has the figures."""

    lane: ClassVar[Lane] = Lane.WORK
    version: int
    reason: str


Command = Draft | Swap | Train | Evaluate | Promote | Reject | RollBack
