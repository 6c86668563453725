"""A turn of drafting that does not get on is noticed; one that does is left alone, however long it lasts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from witness import until

import daemon.executor
from daemon.executor import Executor
from daemon.pipeline import Pipeline
from daemon.ports import Request, Tally
from handlers.commands import Draft
from handlers.events import Event


class Turns:
    """A pipeline whose turns come to a batch when they are told to, and end when they are told to."""

    def __init__(self) -> None:
        self.batch, self.end = asyncio.Event(), asyncio.Event()
        self.batches = 0

    async def turn(self, _request: Request, progress: Callable[[Tally], None]) -> Tally:
        while not self.end.is_set():
            if self.batch.is_set():
                self.batches += 1
                progress(Tally(written=1))
            await asyncio.sleep(0.01)
        return Tally(written=self.batches)


async def test_a_turn_that_does_not_get_on_is_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon.executor, "STEP_S", 0.5)
    turns, rung = Turns(), list[Event]()
    nobody = cast(Any, None)
    async with asyncio.TaskGroup() as tasks:
        executor = Executor(
            tasks, cast(Pipeline, turns), rung.append, asyncio.Lock(), lambda: 7,
            trainer=nobody, judge=nobody, promoter=nobody,
        )  # fmt: skip
        assert executor.overdue_s() == 0
        executor.start(Draft(7, batches=4))
        await until(lambda: executor.overdue_s() > 0, "stuck before its first batch", pause_s=0.01)
        turns.batch.set()
        await until(lambda: turns.batches > 3, "some batches", pause_s=0.01)
        assert executor.overdue_s() == 0
        assert executor.total == Tally(written=1), "what was written is counted while the turn lasts"
        turns.batch.clear()
        await until(lambda: executor.overdue_s() > 0, "stuck between two batches", pause_s=0.01)
        turns.end.set()
        await until(lambda: rung, "the end of the turn", pause_s=0.01)
        assert executor.overdue_s() == 0
