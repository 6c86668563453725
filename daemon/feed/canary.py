"""Proof of flow: the daemon changes a row of its own and has to hear of it through Realtime."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from daemon.backoff import backoff
from daemon.feed.loss import FeedState, Loss

log = structlog.get_logger(__name__)


class Canary:
    """Writes a beat every `every_s` seconds; one that does not come back within `timeout_s` is a loss.

    `beat` writes the row and returns its number, which rises. It outlives connections.
    """

    def __init__(self, beat: Callable[[], Awaitable[int]], *, every_s: float, timeout_s: float) -> None:
        self._beat = beat
        self._every_s = every_s
        self._timeout_s = timeout_s
        self._heard = 0
        self._told = asyncio.Event()
        self._unwritten = False

    def hear(self, number: int) -> None:
        """A beat came back. Its frame may be earlier than the answer to the write."""
        self._heard = max(self._heard, number)
        self._told.set()

    async def sing(self, proven: Callable[[], None]) -> Loss:
        """Beat until one is lost. `proven` is called after each that came back.

        A beat that cannot be written says nothing about the feed: another is tried at the next turn, and sooner while
        none has come back yet.
        """
        failures: int | None = 0
        while True:
            self._heard = 0
            number = await self._write()
            if number is not None:
                if not await self._comes_back(number):
                    return Loss(
                        FeedState.DEAF, "Realtime delivers nothing: this daemon's own change did not come back."
                    )
                proven()
                failures = None
            elif failures is not None:
                failures += 1
            await asyncio.sleep(self._every_s if failures is None else min(self._every_s, backoff(failures)))

    async def _write(self) -> int | None:
        try:
            async with asyncio.timeout(self._timeout_s):
                number = await self._beat()
        except Exception as error:  # whatever ails the database is not the feed's to judge
            if not self._unwritten:
                log.warning("the canary cannot be written; the feed is kept unproven", error=type(error).__name__)
            self._unwritten = True
            return None
        self._unwritten = False
        return number

    async def _comes_back(self, number: int) -> bool:
        try:
            async with asyncio.timeout(self._timeout_s):
                while self._heard < number:
                    self._told.clear()
                    await self._told.wait()
        except TimeoutError:
            return False
        return True
