"""The card that an editor shows of a re-draft. It is no reason to stop, whatever is wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from daemon.clips import ClipStore
from daemon.errors import AmbaraError, first_error
from daemon.ports import Tally

TOLD_S = 5.0
"""Seconds between two words to the editor, which looks as often."""
LAST_WORD_S = 3.0
"""What the last one may take: somebody who has pressed Ctrl-C waits for it."""


class Card:
    """What is told of one re-draft. `tally`: what it has come to so far."""

    def __init__(self, store: ClipStore, title: str, total: int) -> None:
        self._store = store
        self._title = title
        self._total = total
        self.tally = Tally()

    async def beside(self, work: Coroutine[Any, Any, Tally], done_as: str) -> Tally:
        """Do the work and tell of it. What it raises comes out here."""
        try:
            tally = await self._beside(work)
        except BaseException:  # Ctrl-C as well
            await self._last_word("failed", None, f"{self._so_far()}, and then it was stopped")
            raise
        failed = f", {tally.failed} failed" if tally.failed else ""
        await self._last_word("done", 100, f"{tally.written} drafts written {done_as}{failed}")
        return tally

    async def _beside(self, work: Coroutine[Any, Any, Tally]) -> Tally:
        try:
            async with asyncio.TaskGroup() as tasks:
                telling = tasks.create_task(self._keep())
                tally = await work
                telling.cancel()
        except* AmbaraError as group:
            raise first_error(group) from None
        return tally

    async def _keep(self) -> None:
        while True:
            await self._tell("running", min(99, 100 * self._done() // max(self._total, 1)), self._so_far())
            await asyncio.sleep(TOLD_S)

    async def _last_word(self, status: str, percent: int | None, message: str) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD_S):
                await self._tell(status, percent, message)

    async def _tell(self, status: str, percent: int | None, message: str) -> None:
        with suppress(AmbaraError):
            await self._store.card(status, percent, message)

    def _done(self) -> int:
        return self.tally.written + self.tally.dropped + self.tally.failed

    def _so_far(self) -> str:
        return f"{self._title}: {self._done()} of {self._total} clips"
