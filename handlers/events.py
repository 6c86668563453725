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


@dataclass(frozen=True, slots=True)
class TrainingFinished:
    """A run has ended with a candidate."""


@dataclass(frozen=True, slots=True)
class TrainingFailed:
    """A run has ended without one."""


@dataclass(frozen=True, slots=True)
class EvaluationFinished:
    """A candidate was compared with the live version."""


@dataclass(frozen=True, slots=True)
class ModelPromoted:
    """Another version is live."""


@dataclass(frozen=True, slots=True)
class ModelRejected:
    """A candidate was turned down."""


@dataclass(frozen=True, slots=True)
class ModelSwapped:
    """Another version is in this process's memory."""


Event = (
    SweepDue
    | ClipsChanged
    | ClipsDrafted
    | TrainingFinished
    | TrainingFailed
    | EvaluationFinished
    | ModelPromoted
    | ModelRejected
    | ModelSwapped
)
EVENTS: tuple[type[Event], ...] = (
    SweepDue,
    ClipsChanged,
    ClipsDrafted,
    TrainingFinished,
    TrainingFailed,
    EvaluationFinished,
    ModelPromoted,
    ModelRejected,
    ModelSwapped,
)
