"""The loop: drain the inbox, observe the truth, decide, start.

The inbox is a set of kinds of event: a burst of ten thousand is one question. What there is to learn is counted beside
it, and decided then: all corrections are read for it, which may take a minute, and clips wait for nobody's sums.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import structlog
from structlog.contextvars import bound_contextvars

from daemon import certificates
from daemon.backoff import backoff
from daemon.errors import AmbaraError, ConfigurationError
from handlers import handle, needs_learning
from handlers.commands import Command
from handlers.events import Event
from handlers.policy import Policy
from handlers.snapshot import Snapshot

log = structlog.get_logger(__name__)


class Observe(Protocol):
    """`daemon.observer.Observer.observe`."""

    def __call__(self, *, learning: bool) -> Awaitable[Snapshot]:
        """Read the truth."""


ROUND_S = 60.0
"""What a round may take: a question to a database that lets it run into its time limit, and a pause."""
COUNT_S = 240.0
"""What a count of what there is to learn may take: as long as the client waits for its questions, and a minute."""

COUNT_SHARE = 0.05
"""Of the time, spent with counting: where nobody trains, all corrections are new and take seconds ..."""
COUNT_PAUSE_S = 30.0
"""... but nobody waits longer for the next count: a candidate may be waiting for its judge."""


class Dispatcher:
    """Asks the same questions again whenever somebody rings. `policy` may be changed between two rounds."""

    def __init__(
        self,
        observe: Observe,
        start: Callable[[Command], None],
        policy: Policy,
    ) -> None:
        self._observe = observe
        self._start = start
        self.policy = policy
        self._ended = time.monotonic()
        """When the last round did."""
        self._inbox: dict[Event, None] = {}
        self._rung = asyncio.Event()
        self._to_learn: dict[Event, None] = {}
        """Those that somebody who looks at `Snapshot.learning` is to hear of, too."""
        self._count = asyncio.Event()
        self._counting: float | None = None
        """Since when they are counted."""
        self.rounds = 0
        """Rounds begun since the start. Each line of a round, and of whatever it starts, bears its number."""
        self.failures = 0
        """Observations that failed in a row."""
        self.trouble = ""
        """What the last of them failed of, in a few words; empty when it did not."""
        self.decided = 0
        """Rounds decided since the start."""

    def ring(self, event: Event) -> None:
        """Put an event into the inbox. Call it from the event loop."""
        self._inbox[event] = None
        self._rung.set()

    def count_overdue_s(self) -> float:
        """By how many seconds a count of what there is to learn has outlasted its time; 0 while it has not."""
        return 0.0 if self._counting is None else max(0.0, time.monotonic() - self._counting - COUNT_S)

    def overdue_s(self, every_s: float) -> float:
        """By how many seconds a round is missing, if somebody rings each `every_s`; 0 if none is."""
        return max(0.0, time.monotonic() - self._ended - every_s - ROUND_S)

    async def run(self) -> None:
        """Decide for ever."""
        while True:
            await self._rung.wait()
            await self.decide()
            self._ended = time.monotonic()

    async def learn(self) -> None:
        """Count what there is to learn, and decide, for ever: after each round that had an event which asks for it."""
        while True:
            await self._count.wait()
            await self.decide_with_learning()

    async def decide(self) -> None:
        """One round. When the truth cannot be read the events stay, and the next round comes after a pause."""
        self._rung.clear()
        self.rounds += 1
        with bound_contextvars(round=self.rounds):
            await self._round()

    async def decide_with_learning(self) -> None:
        """One round more, with all that there is to know. Where that cannot be read, the sweep asks again."""
        self._count.clear()
        events, self._to_learn = self._to_learn, {}
        self._counting = began = time.monotonic()
        self.rounds += 1
        with bound_contextvars(round=self.rounds):
            try:
                snapshot = await self._observe(learning=True)
            except AmbaraError as error:
                log.warning("cannot count corrections", reason=error.reason, error=str(error))
            else:
                self._decide(events, snapshot)
            self._counting = None
            await asyncio.sleep(min((time.monotonic() - began) / COUNT_SHARE, COUNT_PAUSE_S))

    def _decide(self, events: Iterable[Event], snapshot: Snapshot) -> None:
        for command in handle(list(events), snapshot, self.policy):
            self._start(command)

    async def _round(self) -> None:
        events, self._inbox = self._inbox, {}
        began = time.monotonic()
        try:
            snapshot = await self._observe(learning=False)
        except AmbaraError as error:
            self.failures += 1
            for_people = isinstance(error, ConfigurationError) or error.reason in certificates.REASONS
            self.trouble = str(error).partition(". ")[0].rstrip(".") if for_people else "Supabase is away"
            pause = backoff(self.failures)
            log.warning("cannot observe", reason=error.reason, error=str(error), again_in_s=round(pause, 1))
            self._put_back(events)
            await asyncio.sleep(pause)
            return
        if self.failures:
            log.info("observing again", failures=self.failures)
        self.failures, self.trouble = 0, ""
        self.decided += 1
        self._decide(events, snapshot)
        if needs_learning(events):
            self._to_learn |= events
            self._count.set()
        # A look at a long queue takes its time; events come faster than that. Look at most half of the time.
        await asyncio.sleep(time.monotonic() - began)

    def _put_back(self, events: Iterable[Event]) -> None:
        for event in events:
            self.ring(event)
