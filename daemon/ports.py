"""Values that cross the rooms of the shell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from daemon.asr.transcriber import Draft, Waveform


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


Heard = tuple[list[Drafted], list[Failed]]
"""What became of a batch on the device."""


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
    device_s: float = field(default=0.0, compare=False)
    """Seconds that it took on the device."""

    def __add__(self, other: Tally) -> Tally:
        """Both stretches together."""
        return Tally(
            self.written + other.written,
            self.dropped + other.dropped,
            self.failed + other.failed,
            self.device_s + other.device_s,
        )


class Ears(Protocol):
    """What the pipeline needs of a model: `daemon.drafter.Drafter`."""

    async def transcribe(self, batch: Sequence[Waveform]) -> list[Draft]:
        """Draft each waveform, in order."""

    async def probe(self) -> None:
        """Raise if the device no longer works."""


LARGEST_CLAIM = 1000
"""Rows that the Data API answers with at most."""


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """Sizes of one turn of drafting."""

    batch_clips: int = 16
    first_share: int = 4
    """Of a queue longer than a batch, the first batch is so small a part of one, the next one twice that, and so on:
    the device waits for its audio, and after another version went live, so do people."""
    batch_seconds: float = 240.0
    """Padded seconds of audio in one batch."""
    claim_clips: int = 64
    """Claimed at once, and several times as many in a backlog: the choice from which batches of similar length are
    formed."""
    lease_s: float = 20.0
    fetches: int = 16
    """Clips whose audio is read at the same time."""


@dataclass(frozen=True, slots=True)
class Request:
    """What one turn is to draft."""

    version: int
    batches: int | None = None
    """Stop claiming after so many; None: until nothing is ready."""
    manual: bool = False
    """Asked for by a person: also clips that another version has drafted already."""
    runs: tuple[str, ...] | None = None
    """Only clips of these runs."""
