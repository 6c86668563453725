"""One turn of drafting: claim, read, transcribe, submit, until nothing is ready or enough was done.

Three things go on at once: the audio of the next batch is fetched and decoded, one batch is on the device, and what was
heard before is written. So the device waits for the network only where that is the slower of the two. A clip that comes
while a long queue is drafted goes in between, by itself, when the device is free. A long clip goes after the short ones
and piece by piece, and what has become ready meanwhile goes in between.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from daemon.asr.chunking import joined
from daemon.asr.transcriber import Waveform
from daemon.clips import ClipStore
from daemon.errors import TemporaryError
from daemon.hearing import hear, pieces_of
from daemon.loading import AudioAwayError, Batch, Loader
from daemon.ports import LARGEST_CLAIM, Claim, Drafted, Ears, Heard, PipelineSettings, Request, Tally
from daemon.writing import Writer, answered

DECODED = 2
"""Batches whose audio is held: the one on the device, and the next."""
IN_A_BACKLOG = 4
"""By this factor more is claimed while the queue is longer than a claim: the lengths in a batch differ less then."""
LOOK_S = 0.25
"""Seconds, at least, between two looks for clips that have just come."""
A_BATCH = 0.7
"""So much of a batch's time, where that is longer. Not all of it: looks would come at the same moment of each batch."""

_NEWS: list[Batch] = []
"""Stands among what is read to say that there is something in between, should the device be waiting."""

T = TypeVar("T")


@dataclass(slots=True)
class Turn:
    """A turn: its request, and what it has claimed and not yet read. What it holds, its writer knows."""

    store: ClipStore
    waiting: Loader
    ears: Ears
    settings: PipelineSettings
    request: Request
    writer: Writer
    newest: Loader
    """Clips that have just come."""
    asking: int = 0
    """Claims that were asked for and whose answer has not come: they may have been carried out."""
    full_claims: int = 0
    """How many claims in a row brought as much as was asked for: there is more."""
    outdated: bool = False
    """Another version is live."""
    away: AudioAwayError | None = None
    """Why nothing more was read."""
    batch_s: float = 0.0
    """How long the last batch was on the device."""
    _ready: asyncio.Queue[list[Batch] | None] = field(default_factory=asyncio.Queue)
    """What is read and planned, in order; None behind the last."""
    _between: list[Batch] = field(default_factory=list)
    """Of the clips that have just come, what is read."""

    async def run(self) -> Tally:
        """Draft. Returns what it came to."""
        decoded = asyncio.Semaphore(DECODED)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read(decoded))
            watching = tasks.create_task(self._watch())
            for_ever = [tasks.create_task(self.writer.run()), tasks.create_task(self._keep())]
            while (batches := await self._ready.get()) is not None:
                while batches:
                    await self._draft(batches.pop(0))  # popped: it may be half an hour of audio
                    await self._draft_come()
                if batches is not _NEWS:
                    decoded.release()
                self._ready.task_done()
                if self._ready.empty():  # the device would wait
                    await self._draft_come()
            watching.cancel()  # what it has claimed and not read is given back with the turn
            await self._draft_come()
            await self.writer.join()
            for task in for_ever:
                task.cancel()
        if self.away:
            raise self.away
        return self.writer.total

    async def _draft_come(self) -> None:
        for batch in self._come():
            await self._draft(batch)

    async def _draft(self, batch: Batch) -> None:
        await self.writer.place()
        self.writer.put(await self._hear(batch))

    async def _read(self, decoded: asyncio.Semaphore) -> None:
        """Claim, and read the audio of one batch after the other."""
        batches = self.request.batches
        planned, after_long = 0, False
        while True:
            await decoded.acquire()
            if not await self._refill(may_claim=batches is None or planned < batches, after_long=after_long):
                break
            share = max(1, self.settings.first_share >> planned)
            loaded = await self.waiting.load(share)
            planned += 1
            # A few alone tell nothing of the storage.
            self.away = loaded.away if share == 1 or not self.waiting else None
            await self.writer.note(loaded.failures)
            if self.away:
                break  # what was read before is drafted all the same
            self._ready.put_nowait(loaded.batches)
            if after_long := loaded.is_long:
                # Meanwhile nobody reads but `_let_in`; the next long one goes after a new claim.
                await self._ready.join()
        self._ready.put_nowait(None)

    async def _refill(self, *, may_claim: bool, after_long: bool) -> bool:
        """Claim if it is time to. Returns whether there is something to read."""
        if self.outdated:
            return False
        if not may_claim:
            return bool(self.waiting) and not after_long
        soon = self.full_claims and len(self.waiting) <= self._reach() // 2
        if (soon or after_long or not self.waiting) and not await self._claim() and after_long:
            return bool(self.waiting) and self.request.manual  # nothing came meanwhile: the turn is over
        return bool(self.waiting)

    async def _watch(self) -> None:
        """Have clips that have just come ready for the device's next free moment, however long the queue."""
        r = self.request
        while not r.manual and r.runs is None:
            await asyncio.sleep(max(LOOK_S, A_BATCH * self.batch_s))
            # Where a second claim may bring all there is, that comes first: the end of a short queue is no news.
            if self.waiting and self.full_claims != 1 and not self._between:
                with suppress(TemporaryError):  # who drafts or reads meets it, too, and knows what to do
                    await self._look()

    async def _look(self) -> None:
        """They are at most a quarter of a batch, and what is ready of the others goes before any more of them: a stream
        keeps nobody waiting."""
        r, s = self.request, self.settings
        asking = self.store.claim_newest(r.version, max(1, s.batch_clips // 4), s.lease_s)
        live, newest = await self._claiming(asking, lambda answer: answer[1])
        self.outdated = live != r.version
        self.newest.add(newest)
        while self.newest.has_short:
            loaded = await self.newest.load()
            self._between += loaded.batches
            self._ready.put_nowait(_NEWS)
            await self.writer.note(loaded.failures)
        self.waiting.add(self.newest.give_up())  # long ones have their turn after the others

    def _come(self) -> list[Batch]:
        """What has just come and is read. More of it waits until this is drafted, and a batch of the others."""
        come, self._between = self._between, []
        return come

    async def _claim(self) -> bool:
        """Claim, and let it wait behind the others. Returns whether anything came."""
        r, s = self.request, self.settings
        limit = max(s.batch_clips, self._reach() - len(self.waiting))
        asking = self.store.claim(r.version, limit, s.lease_s, manual=r.manual, runs=r.runs)
        claims = await self._claiming(asking, lambda answer: answer)
        self.full_claims = self.full_claims + 1 if len(claims) == limit else 0
        self.waiting.add(claims)
        return bool(claims)

    def _reach(self) -> int:
        """How many clips to have claimed and not yet read."""
        some = self.settings.claim_clips
        return min(LARGEST_CLAIM, IN_A_BACKLOG * some) if self.full_claims else some

    async def _claiming(self, asking: Coroutine[Any, Any, T], claims: Callable[[T], list[Claim]]) -> T:
        """Claim, and note what is held then."""
        self.asking += 1

        def hold(answer: T) -> None:
            self.writer.held |= {claim.clip_id: claim for claim in claims(answer)}
            self.asking -= 1

        return await answered(asking, hold)

    async def _hear(self, batch: Batch) -> Heard:
        if len(batch) == 1 and len(pieces := pieces_of(batch[0][1], self.settings.batch_seconds)) > 1:
            return await self._hear_long(batch[0][0], pieces)
        return await self._on_device(batch)

    async def _hear_long(self, claim: Claim, pieces: Sequence[Waveform]) -> Heard:
        """Hear piece by piece, and between two what has become ready. The model stays the same as long as the turn."""
        heard: list[Drafted] = []
        for number, piece in enumerate(pieces):
            if number and not self.request.manual:
                same = True
                with suppress(TemporaryError):  # the database is away: no reason to begin this clip anew
                    same = await self._let_in()
                if not same:
                    return [], []  # the claim is given back with the turn, for whose end the other model waits
            drafted, failures = await self._on_device([(claim, piece)])
            if failures:
                return [], failures
            heard += drafted
        return [Drafted(claim, joined([one.draft for one in heard]))], []

    async def _let_in(self) -> bool:
        """Draft what is short and has become ready. Returns whether the version is still live."""
        live, ready = await self.store.snapshot()
        if live != self.request.version:
            return False
        for batch in self._come():
            await self.writer.settle(*await self._on_device(batch))
        if ready:
            await self._claim()
        while self.waiting.has_short:
            loaded = await self.waiting.load()
            await self.writer.note(loaded.failures)
            while loaded.batches:
                await self.writer.settle(*await self._on_device(loaded.batches.pop(0)))
        return True

    async def _on_device(self, batch: Batch) -> Heard:
        began = time.monotonic()
        try:
            return await hear(self.ears, batch)
        finally:
            self.batch_s = time.monotonic() - began
            self.writer.total += Tally(device_s=self.batch_s)

    async def _keep(self) -> None:
        """Renew what is held while the work takes its time."""
        while True:
            await asyncio.sleep(self.settings.lease_s / 3)
            if self.writer.held:
                with suppress(TemporaryError):
                    await self.store.renew(list(self.writer.held), self.settings.lease_s)
