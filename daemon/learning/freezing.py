"""From rows and files that change to a data set that does not.

Each clip ends in the set or among those left out with a reason; none stops the others. What is written stays: after
an interruption, freezing the same samples into the same folder goes on where it was.
"""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from daemon.asr.transcriber import SAMPLE_RATE, Waveform
from daemon.audio_source import MissingAudio
from daemon.backoff import backoff
from daemon.errors import AmbaraError, PermanentError, TemporaryError, first_error
from daemon.learning import audiofolder, leaks, pcm
from daemon.learning.audiofolder import Entry, Frozen
from daemon.learning.ports import Sample, Side
from daemon.learning.reasons import in_words

FETCHES = 8
TRIES = 4
LONGEST_TEXT = 8_000
"""Characters. Half a minute of fast speech is under a thousand; the limit in tokens is the model's to judge."""

T = TypeVar("T")
ReadAudio = Callable[[str, str], Awaitable[Waveform]]
"""(run id, file name) -> waveform; raises `TemporaryError` or `PermanentError`. See `AudioReader.read`."""


async def freeze(
    samples: Sequence[Sample],
    read: ReadAudio,
    folder: Path,
    *,
    max_seconds: float = 30.0,
    left_out: Mapping[str, int] = MappingProxyType({}),
    progress: Callable[[int, int], None] | None = None,
    both_sides: bool = True,
    pause_s: float = 1.0,
) -> Frozen:
    """Write the samples' texts and audio to `folder`, checked and without leaks between the sides.

    Args:
        samples: what to freeze; a `text` of None is left out.
        read: gives a clip's audio.
        folder: of this data set alone; a whole one that is there already is returned as it is.
        max_seconds: longer clips are left out: the model would not hear all that it is to write.
        left_out: what was left out before, by reason; goes into the result.
        progress: hears how many samples are done, and of how many.
        both_sides: whether a set without a clip on either side is refused.
        pause_s: before the second try to read a clip; it doubles with each of the `TRIES`.

    Raises:
        TemporaryError: the storage, the decoder or the disk fails for every clip, not for one: try again later.
        PermanentError: ``no-training-clip`` or ``nothing-held-out``.
    """
    if done := await asyncio.to_thread(audiofolder.load_manifest, folder):
        return done
    freezer = _Freezer(samples, read, folder, max_seconds, progress or _silent, pause_s)
    with _writing(folder):
        audiofolder.prepare(folder)
    await freezer.fetch_all()
    return await _to_its_end(lambda: freezer.settle(left_out, both_sides=both_sides))


class _Freezer:
    def __init__(
        self,
        samples: Sequence[Sample],
        read: ReadAudio,
        folder: Path,
        max_seconds: float,
        progress: Callable[[int, int], None],
        pause_s: float,
    ) -> None:
        self._samples = samples
        self._read = read
        self._folder = folder
        self._max_samples = round(max_seconds * SAMPLE_RATE)
        self._progress = progress
        self._pause_s = pause_s
        self._entries: dict[str, Entry] = {}
        self._refused: dict[str, str] = {}
        self._aside: dict[str, Sample] = {}
        """Clips that could not be read, while others could."""
        self._in_vain = 0
        """Clips in a row that nothing answered for."""

    async def fetch_all(self) -> None:
        """Give each sample an entry or a refusal."""
        samples = iter(self._samples)
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(FETCHES):
                    tasks.create_task(self._work(samples))
        except* AmbaraError as group:
            raise first_error(group) from None
        for sample in self._aside.values():
            await self._last_chance(sample)

    async def _work(self, samples: Iterator[Sample]) -> None:
        for sample in samples:
            text = None if sample.text is None else sample.text.strip()
            if not text:
                self._refuse(sample, "changed-since" if text is None else "empty-text")
            elif len(text) > LONGEST_TEXT:
                self._refuse(sample, "text-too-long")
            else:
                await self._take(sample, text)
            self._progress(len(self._entries) + len(self._refused) + len(self._aside), len(self._samples))

    async def _take(self, sample: Sample, text: str) -> None:
        path = self._path(sample)
        if (kept := await asyncio.to_thread(pcm.read_clip, path)) is not None:
            self._entries[sample.clip_id] = audiofolder.entry(sample, text, kept)
        elif (wave := await self._fetch(sample)) is not None:
            await self._keep(sample, text, wave)

    async def _fetch(self, sample: Sample) -> Waveform | None:
        """The clip's audio; None where the clip is settled otherwise."""
        for tried in range(1, TRIES + 1):
            try:
                wave = await self._read(sample.run_id, sample.file_name)
            except (MissingAudio, PermanentError) as error:
                self._in_vain = 0
                self._refuse(sample, error.reason)
                return None
            except TemporaryError as error:
                if tried < TRIES:
                    await asyncio.sleep(backoff(tried, first_s=self._pause_s))
                    continue
                self._in_vain += 1
                if self._in_vain >= FETCHES:  # as many as are asked at a time: do not ask for all the others, too
                    await self._confirm(error)
                    self._in_vain = 0
                self._aside[sample.clip_id] = sample
            else:
                self._in_vain = 0
                return wave
        return None

    async def _last_chance(self, sample: Sample) -> None:
        """Read what was put aside once more, when all others are read."""
        assert sample.text is not None
        try:
            wave = await self._read(sample.run_id, sample.file_name)
        except (MissingAudio, PermanentError) as error:
            self._refuse(sample, error.reason)
        except TemporaryError as error:
            await self._confirm(error)
            self._refuse(sample, error.reason)
        else:
            await self._keep(sample, sample.text.strip(), wave)

    async def _confirm(self, error: TemporaryError) -> None:
        """Is it the clip, or the place where all are? Raise unless the place gives what it gave before."""
        witness = next((sample for sample in self._samples if sample.clip_id in self._entries), None)
        if witness is None:
            raise error
        try:
            await self._read(witness.run_id, witness.file_name)
        except (MissingAudio, PermanentError):
            pass  # another file since, or none: the place answers

    async def _keep(self, sample: Sample, text: str, wave: Waveform) -> None:
        if len(wave) > self._max_samples:
            self._refuse(sample, "too-long")
            return

        def write() -> Entry | None:
            samples = pcm.to_pcm(wave)
            if pcm.is_silent(samples):
                return None
            with _writing(self._folder):
                pcm.write_clip(self._path(sample), samples)
            return audiofolder.entry(sample, text, samples)

        entry = await _to_its_end(write)
        if entry:
            self._entries[sample.clip_id] = entry
        else:
            self._refuse(sample, "no-audio")

    def settle(self, left_out: Mapping[str, int], *, both_sides: bool) -> Frozen:
        """Keep the sides apart and write what makes the folder whole."""
        entries = [self._entries[s.clip_id] for s in self._samples if s.clip_id in self._entries]
        training = [entry for entry in entries if entry.side is Side.TRAIN]
        held_out = [entry for entry in entries if entry.side is Side.HELD_OUT]
        leaking = leaks.leaks(training, held_out)
        refused = self._refused | leaking
        counts = Counter(left_out) + Counter(refused.values())
        training = [entry for entry in training if entry.clip_id not in leaking]
        if both_sides and not training:
            raise _refusal("No clip to train on is left", counts, "no-training-clip")
        if both_sides and not held_out:
            raise _refusal("No held-out clip is left to judge by", counts, "nothing-held-out")
        kept = [entry for entry in entries if entry.clip_id not in leaking]
        noted = leaks.notes(training)
        with _writing(self._folder):
            return audiofolder.write_set(self._folder, kept, left_out=counts, refused=refused, notes=noted)

    def _path(self, sample: Sample) -> Path:
        return self._folder / audiofolder.clip_file(sample.side, sample.clip_id)

    def _refuse(self, sample: Sample, reason: str) -> None:
        self._refused[sample.clip_id] = reason


def _refusal(what: str, counts: Mapping[str, int], reason: str) -> PermanentError:
    why = in_words(counts)
    left_out = f"; left out: {why}" if why else ""
    return PermanentError(f"{what}{left_out}: correct some clips of other recordings.", reason=reason)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """An error of the disk as a sentence."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "make room on that disk" if full else f"{error.strerror}; look after its permissions and its disk"
        raise TemporaryError(
            f"The data set cannot be written to {folder}: {remedy}.", reason="disk-full" if full else "disk"
        ) from None


async def _to_its_end(work: Callable[[], T]) -> T:
    """Work in a thread, which cannot be cancelled: who goes on in the same folder must not meet it there."""
    working = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.gather(working, return_exceptions=True)
        raise


def _silent(_done: int, _total: int) -> None:
    pass
