"""Reading the audio of what was claimed: batch by batch, within a budget of seconds, whatever the rows say.

A row's `duration_sec` is a hint that nobody checks. Batches are planned by it, because the audio is not there yet; what
turns out to be longer than there is room for is let go at once, and read again where its real length belongs. So no
more is held than one batch's budget, or one long clip, and the one clip that is being decoded.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass

from daemon.asr.transcriber import SAMPLE_RATE, Waveform
from daemon.audio import MissingAudio, UnreadableAudio
from daemon.batching import plan_batches
from daemon.errors import AmbaraError, PermanentError, TemporaryError
from daemon.ports import Claim, Failed, PipelineSettings, Retry

UNKNOWN_DURATION_S = 30.0
"""A clip whose row tells no duration is planned for as if it were this long."""
TOLERANCE = 1.1
"""By this factor the real lengths of a batch may exceed its budget: rows are rounded, and no plan breaks for that."""

ReadAudio = Callable[[str, str], Awaitable[Waveform]]
"""(run id, file name) -> waveform; raises `TemporaryError` or `PermanentError`."""
Batch = list[tuple[Claim, Waveform]]


class AudioAwayError(TemporaryError):
    """Not a clip of a batch could be read: it may be the storage.

    What was tried is out of the way for a quarter of a minute, so no clip can keep the others waiting.
    """


@dataclass(slots=True)
class Loaded:
    """What came of one planned batch."""

    batches: list[Batch]
    """Planned anew by the real lengths: mostly one."""
    failures: list[Failed]
    put_off: int
    """How many clips were longer than their rows say, and are still waiting."""
    is_long: bool
    """A clip that alone exceeds the budget. Only such ones are waiting still."""

    @property
    def away(self) -> AudioAwayError | None:
        """Why nothing at all could be read, if that may be over soon."""
        soon = next((failure for failure in self.failures if failure.retry is Retry.SOON), None)
        if soon is None or self.batches or self.put_off:
            return None
        return AudioAwayError(soon.message, reason=soon.reason)


class Loader:
    """Claims whose audio is yet to be read. `lengths`: clip id -> real seconds, where a row told too few."""

    def __init__(self, read: ReadAudio, settings: PipelineSettings, lengths: MutableMapping[str, float]) -> None:
        self._read = read
        self._settings = settings
        self._lengths = lengths
        self._waiting: dict[str, Claim] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, claims: Iterable[Claim]) -> None:
        """Let these wait behind the others."""
        self._waiting |= {claim.clip_id: claim for claim in claims}

    def give_up(self) -> list[Claim]:
        """Let go of what is still waiting, and return it."""
        claims = list(self._waiting.values())
        self._waiting.clear()
        return claims

    @property
    def has_short(self) -> bool:
        """Whether one is waiting that is not long, as far as is known."""
        return any(seconds <= self._settings.batch_seconds for seconds in self._planned())

    async def load(self, share: int = 1) -> Loaded:
        """Read the batch that is next: the first ones first, long ones last. Something must be waiting.

        `share`: of more than a batch, so small a part of one.
        """
        s = self._settings
        claims = list(self._waiting.values())
        planned = self._planned()
        most = s.batch_clips if len(claims) <= s.batch_clips else max(1, s.batch_clips // share)
        first, *_ = plan_batches(planned, max_clips=most, max_padded=s.batch_seconds)
        is_long = planned[first[0]] > s.batch_seconds
        room = _Room(TOLERANCE * s.batch_seconds - sum(planned[i] for i in first), unlimited=is_long)
        places = asyncio.Semaphore(s.fetches)

        async def read(claim: Claim, planned_s: float) -> Waveform | AmbaraError | None:
            async with places:
                try:
                    wave = await self._read(claim.run_id, claim.file_name)
                except (TemporaryError, PermanentError) as error:
                    return error
            real_s = _seconds(wave)
            if room.takes(real_s, planned_s):
                return wave
            self._lengths[claim.clip_id] = real_s
            return None

        answers = await asyncio.gather(*(read(claims[i], planned[i]) for i in first))
        loaded: Batch = []
        failures: list[Failed] = []
        for i, answer in zip(first, answers, strict=True):
            if isinstance(answer, AmbaraError):
                failures.append(Failed(claims[i], _retry(answer), answer.reason, str(answer)))
            elif answer is not None:
                loaded.append((claims[i], answer))
        for claim in (*(claim for claim, _ in loaded), *(failure.claim for failure in failures)):
            del self._waiting[claim.clip_id]
        put_off = len(first) - len(loaded) - len(failures)
        return Loaded(self._planned_anew(loaded), failures, put_off, is_long)

    def _planned(self) -> list[float]:
        """Seconds for each that is waiting."""
        return [self._lengths.get(claim.clip_id) or _told(claim) for claim in self._waiting.values()]

    def _planned_anew(self, batch: Batch) -> list[Batch]:
        s = self._settings
        real = [_seconds(wave) for _, wave in batch]
        plan = plan_batches(real, max_clips=s.batch_clips, max_padded=TOLERANCE * s.batch_seconds)
        return [[batch[i] for i in indices] for indices in plan]


class _Room:
    """How many seconds a batch may still exceed its plan by. A clip that keeps to its own always has its place."""

    def __init__(self, spare_s: float, *, unlimited: bool) -> None:
        self._spare_s = max(0.0, spare_s)
        self._unlimited = unlimited

    def takes(self, real_s: float, planned_s: float) -> bool:
        """Whether a clip may stay; its place is free again if not."""
        fits = self._unlimited or real_s <= planned_s + self._spare_s
        self._spare_s += planned_s - real_s if fits else planned_s
        return fits


def _told(claim: Claim) -> float:
    told = claim.duration_s
    return told if told is not None and told > 0 and math.isfinite(told) else UNKNOWN_DURATION_S


def _seconds(wave: Waveform) -> float:
    return len(wave) / SAMPLE_RATE


def _retry(error: AmbaraError) -> Retry:
    if isinstance(error, PermanentError):
        return Retry.NEVER
    # What is wrong with this clip alone stands back longer each time, however many there are, and is no sign that the
    # storage is away.
    return Retry.LATER if isinstance(error, MissingAudio | UnreadableAudio) else Retry.SOON
