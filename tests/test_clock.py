"""The clock under a wall clock that jumps. Only the wall clock is false here; the loop and the scheduler are real."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta, tzinfo

import apscheduler.schedulers.base
import pytest
from structlog.testing import capture_logs

import daemon.clock
from daemon.clock import Clock

GUARD_S = 20.0
"""Only a test that would fail anyway waits for so long."""


class Wall:
    """The wall clock that the modules under test read."""

    shift = timedelta()


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    wall = Wall()

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + wall.shift

    monkeypatch.setattr(apscheduler.schedulers.base, "datetime", Shifted)
    monkeypatch.setattr(daemon.clock, "datetime", Shifted)
    monkeypatch.setattr(daemon.clock, "LOOK_EVERY_S", 0.05)
    return wall


class Turns:
    """Counts calls, and waits for more of them."""

    def __init__(self) -> None:
        self.count = 0
        self._more = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self._more.set()

    async def more(self, turns: int) -> None:
        """Return after so many further calls."""
        goal = self.count + turns
        async with asyncio.timeout(GUARD_S):
            while self.count < goal:
                self._more.clear()
                await self._more.wait()


async def test_turns_come_in_the_event_loop_and_end_with_the_clock() -> None:
    loops: set[asyncio.AbstractEventLoop] = set()
    turns = Turns()

    def callback() -> None:
        loops.add(asyncio.get_running_loop())
        turns()

    with Clock() as clock:
        clock.every(0.02, 0.2, callback, "test")
        await turns.more(3)
    assert loops == {asyncio.get_running_loop()}
    await asyncio.sleep(0)  # the scheduler leaves in the next round of the loop
    await asyncio.sleep(0)
    count = turns.count
    await asyncio.sleep(0.2)
    assert turns.count == count
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_first_turn_comes_after_a_pause() -> None:
    turns = Turns()
    began = time.monotonic()
    with Clock() as clock:
        clock.every(0.3, 0.0, turns, "test")
        await turns.more(1)
    assert time.monotonic() - began >= 0.29


def test_the_pause_counts_from_now_and_varies_by_the_fraction() -> None:
    now = datetime.now(UTC)
    every = daemon.clock._Every(30.0, 0.2)
    long_ago = now - timedelta(days=20_000)
    pauses = [(every.get_next_fire_time(long_ago, now) - now).total_seconds() for _ in range(2000)]
    assert 24.0 <= min(pauses) < 24.5
    assert 35.5 < max(pauses) <= 36.0


@pytest.mark.parametrize("days", [-20_000, -1, 1, 20_000])
async def test_a_wall_clock_that_jumps_does_not_stop_the_turns(wall: Wall, days: int) -> None:
    turns = Turns()
    with Clock() as clock:
        clock.every(0.05, 0.2, turns, "test")
        await turns.more(2)
        wall.shift = timedelta(days=days)
        await turns.more(5)


@pytest.mark.parametrize("hours", [-5, 5])
async def test_after_a_jump_everything_is_due_at_once(wall: Wall, hours: int) -> None:
    """The machine may have slept: what happened meanwhile should not wait for the rest of an hour."""
    turns = Turns()
    with Clock() as clock:
        clock.every(3600, 0.2, turns, "test")
        wall.shift = timedelta(hours=hours)
        await turns.more(1)


async def test_a_clock_that_is_slewed_is_no_jump(wall: Wall) -> None:
    turns = Turns()
    with Clock() as clock:
        clock.every(3600, 0.0, turns, "test")
        for step in range(10):
            wall.shift = timedelta(seconds=0.1 * step)
            await asyncio.sleep(0.05)
    assert turns.count == 0


async def test_a_turn_that_fails_is_logged_and_the_next_one_comes() -> None:
    turns = Turns()

    def callback() -> None:
        turns()
        raise RuntimeError("no luck")

    with capture_logs() as lines, Clock() as clock:
        clock.every(0.02, 0.2, callback, "sweep")
        await turns.more(3)
    assert [line["turn"] for line in lines][:2] == ["sweep", "sweep"]


async def test_an_asynchronous_turn_never_runs_beside_itself() -> None:
    running = most = 0
    turns = Turns()

    async def callback() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.1)
        running -= 1
        turns()

    with Clock() as clock:
        clock.every(0.02, 0.0, callback, "test")
        await turns.more(3)
    assert most == 1


async def test_a_turn_that_is_under_way_at_the_end_is_cancelled_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    begun = asyncio.Event()
    ended: list[type[BaseException]] = []

    async def callback() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        except BaseException as error:
            ended.append(type(error))
            raise

    with caplog.at_level(logging.WARNING), Clock() as clock:
        clock.every(0.02, 0.0, callback, "test")
        async with asyncio.timeout(GUARD_S):
            await begun.wait()
    turn = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.wait(turn, timeout=GUARD_S)
    assert ended == [asyncio.CancelledError]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
