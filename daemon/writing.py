"""What was heard is written to the database, one batch after the other, while the device hears the next."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import structlog

from daemon.clips import ClipStore
from daemon.errors import AmbaraError, TemporaryError
from daemon.ports import Claim, Drafted, Failed, Heard, Outcome, Request, Retry, Tally

log = structlog.get_logger(__name__)

GIVE_BACK_S = 3.0
"""Seconds that a turn which was interrupted may take to learn what it holds, and again to give it back."""
BUSY_RETRIES = 5
BUSY_PAUSE_S = 0.1
UNWRITTEN = 2
"""Batches that may wait for their drafts to be written while another is on the device."""


T = TypeVar("T")


async def answered(asking: Coroutine[Any, Any, T], hear: Callable[[T], None]) -> T:
    """Ask, and let `hear` have the answer. A cancellation waits for it a while.

    Only what is known to be held can be given back; and what a statement on its way has locked, nobody can.
    """
    asked = asyncio.get_running_loop().create_task(asking)
    try:
        await asyncio.shield(asked)
    finally:
        with suppress(AmbaraError, TimeoutError):
            async with asyncio.timeout(GIVE_BACK_S):
                hear(await asked)
    return asked.result()


@dataclass(slots=True)
class Writer:
    """Submits drafts and notes failures of one turn, and counts both."""

    store: ClipStore
    request: Request
    lengths: dict[str, float]
    """As for `Loader`: what is written is forgotten here."""
    progress: Callable[[Tally], None] | None = None
    """Hears of every batch what there is in all."""
    held: dict[str, Claim] = field(default_factory=dict)
    """Clip id -> the claim that is neither written nor given back."""
    total: Tally = field(default_factory=Tally)
    refused: Counter[str] = field(default_factory=Counter)
    """Reason -> how many clips could not be drafted."""
    such_as: str = ""
    """One of them."""
    _heard: asyncio.Queue[Heard] = field(default_factory=asyncio.Queue)
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(UNWRITTEN + 1))

    async def place(self) -> None:
        """Wait until one more batch may be heard; `put` has to follow."""
        await self._places.acquire()

    def put(self, heard: Heard) -> None:
        """Let a batch be written when those before it are."""
        self._heard.put_nowait(heard)

    async def run(self) -> None:
        """Write for ever what is put."""
        while True:
            await self.settle(*await self._heard.get())
            self._places.release()
            self._heard.task_done()

    async def join(self) -> None:
        """Wait until everything that was put is written."""
        await self._heard.join()

    async def settle(self, drafted: Sequence[Drafted], failures: Sequence[Failed]) -> None:
        """Write what became of a batch, now."""
        self._count(await self._submit(drafted))
        await self.note(failures)

    async def note(self, failures: Sequence[Failed]) -> None:
        """Store why clips could not be drafted."""
        if not failures:
            return
        self.refused.update(failure.reason for failure in failures)
        self.such_as = failures[-1].claim.clip_id
        for f in failures:
            log.debug("clip not drafted", clip=f.claim.clip_id, attempt=f.claim.attempts + 1, reason=f.reason)
        await self.store.fail(failures, manual=self.request.manual)
        self._forget(f.claim for f in failures)
        self._count(Tally(failed=len(failures)))

    async def _submit(self, drafted: Sequence[Drafted]) -> Tally:
        pending = list(drafted)
        tally = Tally()
        for attempt in range(BUSY_RETRIES + 1):
            if not pending:
                break
            if attempt:
                await asyncio.sleep(BUSY_PAUSE_S * attempt)
            try:
                outcomes = await answered(
                    self.store.submit(self.request.version, pending), partial(self._forget_settled, pending)
                )
            except TemporaryError as error:
                if error.reason != "database-error":
                    raise
                return tally + await self._submit_apart(pending, error)
            settled = [d for d in pending if outcomes[d.claim.clip_id] is not Outcome.BUSY]
            for d in settled:
                log.debug("clip drafted", clip=d.claim.clip_id, outcome=outcomes[d.claim.clip_id].value)
            written = sum(outcomes[d.claim.clip_id] is Outcome.WRITTEN for d in settled)
            tally += Tally(written=written, dropped=len(settled) - written)
            pending = [d for d in pending if outcomes[d.claim.clip_id] is Outcome.BUSY]
        if pending:  # somebody holds the row for long: the clip is asked for again later
            await self.store.release([d.claim.clip_id for d in pending])
            self._forget(d.claim for d in pending)
        return tally + Tally(dropped=len(pending))

    async def _submit_apart(self, drafted: Sequence[Drafted], error: TemporaryError) -> Tally:
        """The database refused a batch: write what it takes, and note the one that it does not."""
        if len(drafted) == 1:
            await self.note([Failed(drafted[0].claim, Retry.LATER, error.reason, str(error))])
            return Tally()
        tally = Tally()
        for one in drafted:
            tally += await self._submit([one])
        return tally

    def _count(self, tally: Tally) -> None:
        self.total += tally
        if self.progress:
            self.progress(self.total)

    def _forget_settled(self, submitted: Sequence[Drafted], outcomes: Mapping[str, Outcome]) -> None:
        self._forget(d.claim for d in submitted if outcomes[d.claim.clip_id] is not Outcome.BUSY)

    def _forget(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            self.held.pop(claim.clip_id, None)
            self.lengths.pop(claim.clip_id, None)
