"""One turn of drafting: claim, read, transcribe, submit, until nothing is ready or enough was done.

While one batch is on the device, the audio of the next is fetched and decoded. A long clip goes after the short ones
and piece by piece, and what has become ready meanwhile goes in between.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from daemon.asr.chunking import joined
from daemon.asr.transcriber import Waveform
from daemon.clips import ClipStore
from daemon.errors import AmbaraError, TemporaryError
from daemon.hearing import hear, pieces_of
from daemon.loading import Batch, Loader
from daemon.ports import Claim, Drafted, Ears, Failed, Outcome, PipelineSettings, Request, Retry, Tally

log = structlog.get_logger(__name__)

BUSY_RETRIES = 5
BUSY_PAUSE_S = 0.1
GIVE_BACK_S = 3.0


@dataclass(slots=True)
class Turn:
    """A turn: its request, and the claims that it holds now."""

    store: ClipStore
    waiting: Loader
    ears: Ears
    settings: PipelineSettings
    request: Request
    lengths: dict[str, float]
    held: dict[str, Claim] = field(default_factory=dict)
    unsure: bool = False
    """A claim was asked for and its answer has not come: it may have been carried out."""
    refused: Counter[str] = field(default_factory=Counter)
    """Reason -> how many clips could not be drafted."""
    such_as: str = ""
    """One of them."""

    async def run(self, progress: Callable[[Tally], None] | None) -> Tally:
        batches: asyncio.Queue[Batch | Tally | None] = asyncio.Queue(maxsize=1)
        total = Tally()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._produce(batches))
            keeper = tasks.create_task(self._keep())
            while (item := await batches.get()) is not None:
                total += item if isinstance(item, Tally) else await self._draft(item)
                del item  # it may be half an hour of audio
                batches.task_done()
                if progress:
                    progress(total)
            keeper.cancel()
        return total

    async def _produce(self, out: asyncio.Queue[Batch | Tally | None]) -> None:
        """Claim, and read the audio of one batch after the other."""
        r = self.request
        planned = 0
        while r.batches is None or planned < r.batches:
            claims = await self._claim()
            if not claims and not (self.waiting and r.manual):
                break  # nothing came while a long clip was drafted, or another version is live: the turn is over
            self.waiting.add(claims)
            planned += await self._read_on(out)
        await out.put(None)

    async def _read_on(self, out: asyncio.Queue[Batch | Tally | None]) -> int:
        """Read what is waiting, up to the end of a long clip. Returns how many batches that were."""
        planned = 0
        while self.waiting:
            loaded = await self.waiting.load()
            planned += 1
            away = loaded.away
            await out.put(await self._note(loaded.failures))
            if away:
                raise away
            while loaded.batches:
                await out.put(loaded.batches.pop(0))
            if loaded.is_long:
                await out.join()  # meanwhile nobody reads but `_let_in`; the next long one goes after a new claim
                break
        return planned

    async def _claim(self) -> list[Claim]:
        """Claim. A cancellation waits for the answer: only what is known to be held can be given back."""
        r, s = self.request, self.settings
        asking = self.store.claim(r.version, s.claim_clips, s.lease_s, manual=r.manual, runs=r.runs)
        claiming = asyncio.get_running_loop().create_task(asking)
        before, self.unsure = self.unsure, True
        try:
            await asyncio.shield(claiming)
        finally:
            with suppress(AmbaraError, TimeoutError):
                async with asyncio.timeout(GIVE_BACK_S):
                    self.held |= {claim.clip_id: claim for claim in await claiming}
                    self.unsure = before
        return claiming.result()

    async def _draft(self, batch: Batch) -> Tally:
        if len(batch) == 1 and len(pieces := pieces_of(batch[0][1], self.settings.batch_seconds)) > 1:
            return await self._draft_long(batch[0][0], pieces)
        drafted, failures = await hear(self.ears, batch)
        return await self._submit(drafted) + await self._note(failures)

    async def _draft_long(self, claim: Claim, pieces: Sequence[Waveform]) -> Tally:
        """Draft piece by piece, and between two what has become ready. The model stays the same as long as the turn."""
        heard: list[Drafted] = []
        others = Tally()
        for number, piece in enumerate(pieces):
            if number and not self.request.manual:
                came: Tally | None = Tally()
                with suppress(TemporaryError):  # the database is away: no reason to begin this clip anew
                    came = await self._let_in()
                if came is None:
                    return others  # the claim is given back with the turn, for whose end the other model waits
                others += came
            drafted, failures = await hear(self.ears, [(claim, piece)])
            if failures:
                return others + await self._note(failures)
            heard += drafted
        return others + await self._submit([Drafted(claim, joined([one.draft for one in heard]))])

    async def _let_in(self) -> Tally | None:
        """Draft what is short and has become ready. None if another version is live."""
        live, ready = await self.store.snapshot()
        if live != self.request.version:
            return None
        if ready:
            self.waiting.add(await self._claim())
        tally = Tally()
        while self.waiting.has_short:
            loaded = await self.waiting.load()
            tally += await self._note(loaded.failures)
            while loaded.batches:
                tally += await self._draft(loaded.batches.pop(0))
        return tally

    async def _submit(self, drafted: Sequence[Drafted]) -> Tally:
        pending = list(drafted)
        tally = Tally()
        for attempt in range(BUSY_RETRIES + 1):
            if not pending:
                break
            if attempt:
                await asyncio.sleep(BUSY_PAUSE_S * attempt)
            try:
                outcomes = await self.store.submit(self.request.version, pending)
            except TemporaryError as error:
                if error.reason != "database-error":
                    raise
                return tally + await self._submit_apart(pending, error)
            settled = [d for d in pending if outcomes[d.claim.clip_id] is not Outcome.BUSY]
            for d in settled:
                log.debug("clip drafted", clip=d.claim.clip_id, outcome=outcomes[d.claim.clip_id].value)
            written = sum(outcomes[d.claim.clip_id] is Outcome.WRITTEN for d in settled)
            tally += Tally(written=written, dropped=len(settled) - written)
            self._forget(d.claim for d in settled)
            pending = [d for d in pending if outcomes[d.claim.clip_id] is Outcome.BUSY]
        if pending:  # somebody holds the row for long: the clip is asked for again later
            await self.store.release([d.claim.clip_id for d in pending])
            self._forget(d.claim for d in pending)
        return tally + Tally(dropped=len(pending))

    async def _submit_apart(self, drafted: Sequence[Drafted], error: TemporaryError) -> Tally:
        """The database refused a batch: write what it takes, and note the one that it does not."""
        if len(drafted) == 1:
            return await self._note([Failed(drafted[0].claim, Retry.LATER, error.reason, str(error))])
        tally = Tally()
        for one in drafted:
            tally += await self._submit([one])
        return tally

    async def _note(self, failures: Sequence[Failed]) -> Tally:
        if failures:
            self.refused.update(failure.reason for failure in failures)
            self.such_as = failures[-1].claim.clip_id
            for f in failures:
                log.debug("clip not drafted", clip=f.claim.clip_id, attempt=f.claim.attempts + 1, reason=f.reason)
            await self.store.fail(failures, manual=self.request.manual)
            self._forget(f.claim for f in failures)
        return Tally(failed=len(failures))

    async def _keep(self) -> None:
        """Renew what is held while the work takes its time."""
        while True:
            await asyncio.sleep(self.settings.lease_s / 3)
            if self.held:
                with suppress(TemporaryError):
                    await self.store.renew(list(self.held), self.settings.lease_s)

    def _forget(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            self.held.pop(claim.clip_id, None)
            self.lengths.pop(claim.clip_id, None)
