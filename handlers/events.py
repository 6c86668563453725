"""Facts, in the past tense. An event says *look again* and carries nothing: a decision looks only at the snapshot."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SweepDue:
    """Nobody said anything for a while, or something may have been missed: look at everything."""


@dataclass(frozen=True, slots=True)
class ClipsChanged:
    """Somebody inserted, updated or deleted clips."""


@dataclass(frozen=True, slots=True)
class ClipsDrafted:
    """A turn of drafting has ended; there may be more to do."""


Event = SweepDue | ClipsChanged | ClipsDrafted
EVENTS: tuple[type[Event], ...] = (SweepDue, ClipsChanged, ClipsDrafted)
