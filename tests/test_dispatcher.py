"""The loop with the real decisions, and a truth that the test holds in its hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import structlog
from structlog.testing import capture_logs

from daemon import dispatcher as module
from daemon.dispatcher import Dispatcher
from daemon.errors import ConfigurationError, TemporaryError
from handlers.commands import Command, Draft, Lane, Promote
from handlers.events import ClipsChanged, ClipsDrafted, EvaluationFinished, SweepDue
from handlers.policy import DraftingPolicy, Policy
from handlers.snapshot import Candidate, Comparison, Learning, Snapshot, Training

GUARD_S = 20.0
NOTHING_NEW = Training(new_clips=0, new_minutes=0, trained_clips=9, trained_minutes=1, recordings=9, held_out=8)
LEARNT = Learning(training=NOTHING_NEW, candidate=None, hour=12)


class Truth:
    """What an observation finds; or fails to find, as often as `failures` says."""

    def __init__(self) -> None:
        self.snapshot = Snapshot(live=3, loaded=3, ready=5)
        self.looked = 0
        self.counted = 0
        self.failures = 0
        self.error: Exception = TemporaryError("away")
        self.seen = asyncio.Event()
        self.started: list[Command] = []

    async def observe(self, *, learning: bool) -> Snapshot:
        self.looked += 1
        self.counted += learning
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise self.error
        self.seen.set()
        return replace(self.snapshot, learning=LEARNT if learning else None)

    async def was_looked_at(self) -> None:
        """Wait for the next observation, and for what follows from it."""
        async with asyncio.timeout(GUARD_S):
            await self.seen.wait()
        self.seen.clear()
        await asyncio.sleep(0)


@pytest.fixture
def truth() -> Truth:
    return Truth()


@pytest.fixture
def loop(truth: Truth) -> Dispatcher:
    return Dispatcher(truth.observe, truth.started.append, Policy(drafting=DraftingPolicy(batches_per_turn=4)))


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many failures in a row each pause was asked for; none of them lasts."""
    asked: list[int] = []

    def no_pause(failures: int) -> float:
        asked.append(failures)
        return 0.0

    monkeypatch.setattr(module, "backoff", no_pause)
    return asked


@asynccontextmanager
async def running(loop: Dispatcher) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        loops = [tasks.create_task(loop.run()), tasks.create_task(loop.learn())]
        yield
        for task in loops:
            task.cancel()


async def test_a_burst_of_events_is_one_look_and_one_decision(truth: Truth, loop: Dispatcher) -> None:
    for _ in range(10_000):
        loop.ring(ClipsChanged())
    loop.ring(SweepDue())
    loop.ring(ClipsDrafted())
    async with running(loop):
        await truth.was_looked_at()
        for _ in range(100):
            await asyncio.sleep(0)
    assert (truth.looked, truth.counted, loop.decided) == (2, 1, 1)
    assert truth.started == [Draft(version=3, batches=4)]


async def test_nobody_rings_and_nothing_is_asked(truth: Truth, loop: Dispatcher) -> None:
    async with running(loop):
        for _ in range(100):
            await asyncio.sleep(0)
    assert truth.looked == 0


async def test_an_event_that_comes_during_a_look_is_answered_by_another_look(truth: Truth) -> None:
    """The look may have been too early for it."""

    async def interrupted(*, learning: bool) -> Snapshot:
        snapshot = await truth.observe(learning=learning)
        if truth.looked == 1:
            loop.ring(ClipsChanged())
        return snapshot

    loop = Dispatcher(interrupted, truth.started.append, Policy())
    loop.ring(SweepDue())
    async with running(loop):
        async with asyncio.timeout(GUARD_S):
            while loop.decided < 2:  # noqa: ASYNC110 - a plain number
                await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
    assert truth.looked - truth.counted == 2


async def test_events_outlive_looks_that_fail(truth: Truth, loop: Dispatcher, pauses: list[int]) -> None:
    """The same question is asked until there is an answer, with growing pauses; then the count begins anew."""
    truth.failures = 5
    async with running(loop):
        loop.ring(ClipsChanged())
        await truth.was_looked_at()
        assert truth.started == [Draft(version=3, batches=4)]
        assert pauses == [1, 2, 3, 4, 5]
        assert (truth.looked, loop.decided, loop.failures) == (6, 1, 0)
        truth.failures = 1
        loop.ring(SweepDue())
        await truth.was_looked_at()
        assert pauses[5:] == [1]


async def test_every_line_of_a_round_bears_its_number_and_so_does_what_it_starts(
    truth: Truth, pauses: list[int]
) -> None:
    told: list[tuple[str, int]] = []

    def bound(what: str) -> None:
        told.append((what, structlog.contextvars.get_contextvars()["round"]))

    async def observe(*, learning: bool) -> Snapshot:
        bound("look")
        return await truth.observe(learning=learning)

    async def effect(command: Command) -> None:
        await asyncio.sleep(0.05)  # until long after its round
        bound(type(command).__name__)

    truth.failures = 1
    async with asyncio.TaskGroup() as tasks:
        loop = Dispatcher(observe, lambda command: bool(tasks.create_task(effect(command))), Policy())
        for _ in range(3):
            loop.ring(SweepDue())
            await loop.decide()
    assert told == [("look", 1), ("look", 2), ("look", 3), ("Draft", 2), ("Draft", 3)]
    assert "round" not in structlog.contextvars.get_contextvars()


async def test_a_refusal_is_no_end_either(truth: Truth, loop: Dispatcher, pauses: list[int]) -> None:
    """A key that is refused for a while (it is being exchanged) does not take the daemon down."""
    truth.error, truth.failures = ConfigurationError("Supabase refuses the key. Set another."), 2
    loop.ring(SweepDue())
    await loop.decide()
    assert loop.trouble == "Supabase refuses the key"
    async with running(loop):
        await truth.was_looked_at()
    assert len(truth.started) == 1
    assert not loop.trouble


async def test_an_unforeseen_error_ends_the_loop(truth: Truth, loop: Dispatcher) -> None:
    """And with it the TaskGroup and the process: a fresh one is better than one in a state that nobody thought of."""
    truth.error, truth.failures = KeyError("live"), 1
    loop.ring(SweepDue())
    async with asyncio.timeout(GUARD_S):
        with pytest.raises(KeyError):
            await loop.run()


@pytest.mark.parametrize(
    "snapshot",
    [
        Snapshot(live=None, loaded=3, ready=5),
        Snapshot(live=3, loaded=3, ready=0),
        Snapshot(live=3, loaded=3, ready=5, busy=frozenset({Lane.DRAFT})),
    ],
)
async def test_it_starts_nothing_that_cannot_be_done(snapshot: Snapshot, truth: Truth, loop: Dispatcher) -> None:
    truth.snapshot = snapshot
    for event in (SweepDue(), ClipsChanged(), ClipsDrafted()):
        loop.ring(event)
        await loop.decide()
    assert (truth.started, loop.decided) == ([], 3)


async def test_corrections_are_counted_only_for_who_asks(truth: Truth, loop: Dispatcher) -> None:
    """Counting takes longer than the rest, and clips change all the time."""
    async with running(loop):
        for event in (ClipsChanged(), ClipsDrafted(), SweepDue()):
            loop.ring(event)
            await truth.was_looked_at()
            if isinstance(event, SweepDue):
                await truth.was_looked_at()
            for _ in range(100):
                await asyncio.sleep(0)
    assert (truth.looked, truth.counted) == (4, 1)


async def test_who_asks_is_answered_with_what_was_counted(truth: Truth, loop: Dispatcher) -> None:
    """The first look of the round knows nothing of it."""
    comparison = Comparison(3, 400, 8, 4000, 0.4, 0.2, 0.1, 0.3, 0.95)
    candidate = replace(LEARNT, candidate=Candidate(4, here=True, comparison=comparison))
    seen: list[bool] = []

    async def observe(*, learning: bool) -> Snapshot:
        seen.append(learning)
        return replace(await truth.observe(learning=learning), learning=candidate if learning else None)

    loop = Dispatcher(observe, truth.started.append, Policy())
    async with running(loop):
        loop.ring(EvaluationFinished())
        async with asyncio.timeout(GUARD_S):
            while not truth.started:  # noqa: ASYNC110 - a plain list
                await asyncio.sleep(0)
    assert seen == [False, True]
    assert [type(command) for command in truth.started] == [Promote]


async def test_clips_are_drafted_while_corrections_are_counted(truth: Truth) -> None:
    """However long that takes, and whatever comes of it."""
    counted = asyncio.Event()
    error = TemporaryError("There are too many.", reason="database-error")

    async def observe(*, learning: bool) -> Snapshot:
        if learning:
            await counted.wait()
            raise error
        return await truth.observe(learning=learning)

    loop = Dispatcher(observe, truth.started.append, Policy())
    async with running(loop):
        loop.ring(SweepDue())
        await truth.was_looked_at()
        loop.ring(ClipsChanged())
        await truth.was_looked_at()
        assert [type(command) for command in truth.started] == [Draft, Draft]
        with capture_logs() as lines:
            counted.set()
            async with asyncio.timeout(GUARD_S):
                while not lines:  # noqa: ASYNC110 - a plain list
                    await asyncio.sleep(0)
        assert [(line["event"], line["reason"]) for line in lines] == [("cannot count corrections", "database-error")]
        loop.ring(ClipsChanged())
        await truth.was_looked_at()
    assert len(truth.started) == 3
    assert loop.failures == 0


async def test_nothing_is_counted_while_the_database_is_away(truth: Truth, loop: Dispatcher, pauses: list[int]) -> None:
    truth.failures = 5
    async with running(loop):
        loop.ring(SweepDue())
        while not pauses[4:]:  # noqa: ASYNC110 - a plain list
            await asyncio.sleep(0)
        assert truth.counted == 0
        await truth.was_looked_at()
        await truth.was_looked_at()
    assert truth.counted == 1


async def test_a_count_that_does_not_end_is_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COUNT_S", 0.1)
    answer = asyncio.Event()

    async def stuck(*, learning: bool) -> Snapshot:
        if learning:
            await answer.wait()
        return Snapshot(live=3, loaded=3, ready=0)

    loop = Dispatcher(stuck, lambda _: None, Policy())
    async with running(loop):
        loop.ring(SweepDue())
        assert loop.count_overdue_s() == 0
        await asyncio.sleep(0.5)
        assert loop.count_overdue_s() > 0
        assert loop.overdue_s(60) == 0
        answer.set()
        async with asyncio.timeout(GUARD_S):
            while loop.count_overdue_s():  # noqa: ASYNC110 - a plain number
                await asyncio.sleep(0)


async def test_a_round_that_does_not_end_is_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROUND_S", 0.1)
    answer = asyncio.Event()

    async def stuck(*, learning: bool) -> Snapshot:
        await answer.wait()
        return Snapshot(live=3, loaded=3, ready=0)

    loop = Dispatcher(stuck, lambda _: None, Policy())
    assert loop.overdue_s(0.1) == 0
    async with running(loop):
        loop.ring(SweepDue())
        await asyncio.sleep(0.5)
        assert loop.overdue_s(0.1) > 0
        assert loop.overdue_s(60) == 0, "nobody was to ring yet"
        answer.set()
        async with asyncio.timeout(GUARD_S):
            while not loop.decided:  # noqa: ASYNC110 - a plain number
                await asyncio.sleep(0)
            await asyncio.sleep(0.6)  # it rests for as long as it looked
        assert loop.overdue_s(0.5) == 0
