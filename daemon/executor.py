"""Carries out commands: one effect per case. What comes of it is told to the dispatcher as an event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, assert_never

import structlog
from structlog.contextvars import bound_contextvars

from daemon.backoff import backoff
from daemon.errors import AmbaraError
from daemon.pipeline import Pipeline
from daemon.ports import Request, Tally
from handlers.commands import Command, Draft, Evaluate, Lane, Promote, Reject, RollBack, Swap, Train
from handlers.events import ClipsDrafted, Event, SweepDue

log = structlog.get_logger(__name__)

IDLE_PAUSE_S = 1.0
STEP_S = 900.0
"""Seconds between two batches of a turn, the device's own time aside: downloads time out long before. What takes longer
hangs."""


class Trains(Protocol):
    """`daemon.learning.trainer.Trainer`."""

    async def train(self, command: Train) -> Event | None:
        """Train to the end."""


class Judges(Protocol):
    """`daemon.learning.judge.Judge`."""

    async def evaluate(self, command: Evaluate) -> Event | None:
        """Compare a candidate with the live version."""


class Promotes(Protocol):
    """`daemon.learning.promoter.Promoter`."""

    async def promote(self, command: Promote) -> Event | None:
        """Make a candidate live."""

    async def reject(self, command: Reject) -> Event | None:
        """Turn a candidate down."""

    async def roll_back(self, command: RollBack) -> Event | None:
        """Make live again what was live before."""

    async def swap(self, command: Swap) -> Event | None:
        """Take the live version into memory."""


class Executor:
    """Runs at most one effect per lane, inside the given TaskGroup. An unforeseen error ends the group.

    `turns` is held for as long as a turn of drafting lasts; `loaded` tells which version is in memory.
    """

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        pipeline: Pipeline,
        ring: Callable[[Event], None],
        turns: asyncio.Lock,
        loaded: Callable[[], int | None],
        *,
        trainer: Trains,
        judge: Judges,
        promoter: Promotes,
    ) -> None:
        self._tasks = tasks
        self._pipeline = pipeline
        self._ring = ring
        self._turns = turns
        self._loaded = loaded
        self._trainer = trainer
        self._judge = judge
        self._promoter = promoter
        self._busy: set[Lane] = set()
        self._failures: dict[Lane, int] = {}
        self.total = Tally()
        """Everything drafted since the start."""
        self._advanced: float | None = None
        """When the turn of drafting under way came to its last batch; None between two."""

    @property
    def busy(self) -> frozenset[Lane]:
        """The lanes in which something runs."""
        return frozenset(self._busy)

    def overdue_s(self) -> float:
        """By how many seconds a turn of drafting has outlasted all that a step may take; 0 while it has not.

        A database or a Storage that is away ends a turn. What is on the device has a budget of its own.
        """
        return 0.0 if self._advanced is None else max(0.0, time.monotonic() - self._advanced - STEP_S)

    def start(self, command: Command) -> None:
        """Begin an effect. The lane must be free."""
        assert command.lane not in self._busy, f"{command.lane} is busy"
        self._busy.add(command.lane)
        with bound_contextvars(**_of(command)):  # a task takes along what is bound where it is made
            self._tasks.create_task(self._carry_out(command), name=type(command).__name__)

    def _effect(self, command: Command) -> Coroutine[Any, Any, Event | None]:  # noqa: PLR0911 - one for each command
        match command:
            case Draft():
                return self._draft(command)
            case Swap():
                return self._promoter.swap(command)
            case Train():
                return self._trainer.train(command)
            case Evaluate():
                return self._judge.evaluate(command)
            case Promote():
                return self._promoter.promote(command)
            case Reject():
                return self._promoter.reject(command)
            case RollBack():
                return self._promoter.roll_back(command)
            case _:
                assert_never(command)

    async def _carry_out(self, command: Command) -> None:
        """Do it, and ring. Whatever is understood and fails leaves its lane busy for a pause, and a sweep follows."""
        try:
            done = await self._effect(command)
            self._failures.pop(command.lane, None)
        except AmbaraError as error:
            done = SweepDue()
            pause = self._pause(command.lane)
            log.warning(
                "interrupted",
                what=type(command).__name__.lower(),
                reason=error.reason,
                error=str(error),
                again_in_s=round(pause, 1),
            )
            await asyncio.sleep(pause)
            if command.lane is Lane.DRAFT:
                await self._give_back()
        finally:
            self._busy.discard(command.lane)
        if done:
            self._ring(done)

    async def _draft(self, command: Draft) -> Event:
        async with self._turns:
            if self._loaded() != command.version:
                return ClipsDrafted()  # the model changed while this waited: the same questions again
            before, began = self.total, time.monotonic()
            self._advance(before)
            try:
                request = Request(command.version, batches=command.batches)
                tally = await self._pipeline.turn(request, lambda so_far: self._advance(before + so_far))
            finally:
                self._advanced = None
            seconds = time.monotonic() - began
        if not tally.written:
            # Something was ready and nothing was written: an editor holds the row, or another worker was quicker.
            # Asking again at once would be a busy loop.
            await asyncio.sleep(IDLE_PAUSE_S)
        if tally != Tally():
            log.info(
                "drafted",
                written=tally.written,
                dropped=tally.dropped,
                failed=tally.failed,
                seconds=round(seconds, 3),
                device_s=round(tally.device_s, 3),
            )
        return ClipsDrafted()

    def _advance(self, total: Tally) -> None:
        self.total = total
        self._advanced = time.monotonic()

    def _pause(self, lane: Lane) -> float:
        self._failures[lane] = self._failures.get(lane, 0) + 1
        return backoff(self._failures[lane])

    async def _give_back(self) -> None:
        """Let go of the claims of an interrupted turn, however long the database is away."""
        while True:
            try:
                await self._pipeline.give_back()
            except AmbaraError:
                await asyncio.sleep(self._pause(Lane.DRAFT))
            else:
                return


def _of(command: Command) -> dict[str, int]:
    """What every line of its effect is about. Which run a `Train` is about, only the database can tell."""
    return {} if isinstance(command, Train) else {"version": command.version}
