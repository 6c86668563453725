"""Values that cross the rooms of the shell."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from daemon.asr.transcriber import Draft


@dataclass(frozen=True, slots=True)
class Claim:
    """A clip that this worker may draft until its lease ends."""

    clip_id: str
    run_id: str
    file_name: str
    """Path under the run: in the bucket the key is ``{run_id}/{file_name}``."""
    duration_s: float | None
    fence: int
    """Rises with every claim; a submission under an older number is dropped."""
    attempts: int
    """Failures since the last draft."""


@dataclass(frozen=True, slots=True)
class Drafted:
    """A claim that the model has answered."""

    claim: Claim
    draft: Draft


class Retry(StrEnum):
    """When to try again what failed."""

    SOON = "soon"
    """In half a minute: something around the clip failed."""
    LATER = "later"
    """After pauses that grow to hours, for ever."""
    NEVER = "never"
    """When the row changes, or another version goes live."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A claim that could not be answered."""

    claim: Claim
    retry: Retry
    reason: str
    """A slug, such as ``audio-missing``."""
    message: str
    """One sentence for a person."""


class Outcome(StrEnum):
    """What became of a submitted draft."""

    WRITTEN = "written"
    DROPPED = "dropped"
    """A person came first, the clip is gone, or another worker has it now."""
    BUSY = "busy"
    """Somebody holds the row at this moment: submit again."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A row of `model_versions`."""

    id: int
    name: str
    fingerprint: str
    kind: str


@dataclass(frozen=True, slots=True)
class Tally:
    """What a stretch of drafting came to, in clips."""

    written: int = 0
    dropped: int = 0
    failed: int = 0

    def __add__(self, other: Tally) -> Tally:
        """Both stretches together."""
        return Tally(self.written + other.written, self.dropped + other.dropped, self.failed + other.failed)
