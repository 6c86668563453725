"""Carries out commands: one effect per case. What comes of it is told to the dispatcher as an event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import assert_never

import structlog

from daemon.backoff import backoff
from daemon.errors import AmbaraError
from daemon.pipeline import Pipeline
from daemon.ports import Request, Tally
from handlers.commands import Command, Draft, Lane
from handlers.events import ClipsDrafted, Event, SweepDue

log = structlog.get_logger(__name__)

IDLE_PAUSE_S = 1.0


class Executor:
    """Runs at most one effect per lane, inside the given TaskGroup. An unforeseen error ends the group."""

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        pipeline: Pipeline,
        ring: Callable[[Event], None],
    ) -> None:
        self._tasks = tasks
        self._pipeline = pipeline
        self._ring = ring
        self._busy: set[Lane] = set()
        self._failures = 0
        self.total = Tally()
        """Everything drafted since the start."""

    @property
    def busy(self) -> frozenset[Lane]:
        """The lanes in which something runs."""
        return frozenset(self._busy)

    def start(self, command: Command) -> None:
        """Begin an effect. The lane must be free."""
        assert command.lane not in self._busy, f"{command.lane} is busy"
        self._busy.add(command.lane)
        match command:
            case Draft():
                self._tasks.create_task(self._draft(command), name="draft")
            case _:
                assert_never(command)

    async def _draft(self, command: Draft) -> None:
        done: Event = ClipsDrafted()
        try:
            tally = await self._pipeline.turn(Request(command.version, batches=command.batches))
            self._failures = 0
            self.total += tally
            if not tally.written:
                # Something was ready and nothing was written: an editor holds the row, or another worker was quicker.
                # Asking again at once would be a busy loop.
                await asyncio.sleep(IDLE_PAUSE_S)
            if tally != Tally():
                log.info(
                    "drafted",
                    version=command.version,
                    written=tally.written,
                    dropped=tally.dropped,
                    failed=tally.failed,
                )
        except AmbaraError as error:
            self._failures += 1
            pause = backoff(self._failures)
            log.warning("drafting interrupted", reason=error.reason, error=str(error), again_in_s=round(pause, 1))
            done = SweepDue()
            await asyncio.sleep(pause)
            await self._give_back()
        finally:
            self._busy.discard(command.lane)
        self._ring(done)

    async def _give_back(self) -> None:
        """Let go of the claims of an interrupted turn, however long the database is away."""
        while True:
            try:
                await self._pipeline.give_back()
            except AmbaraError:
                self._failures += 1
                await asyncio.sleep(backoff(self._failures))
            else:
                return
