"""The loop: drain the inbox, observe the truth, decide, start.

The inbox is a set of kinds of event: a burst of ten thousand is one question.
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


ROUND_S = 180.0
"""What a round may take: three questions to a database that lets each run into its time limit, and a pause as long."""


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

    def overdue_s(self, every_s: float) -> float:
        """By how many seconds a round is missing, if somebody rings each `every_s`; 0 if none is."""
        return max(0.0, time.monotonic() - self._ended - every_s - ROUND_S)

    async def run(self) -> None:
        """Decide for ever."""
        while True:
            await self._rung.wait()
            await self.decide()
            self._ended = time.monotonic()

    async def decide(self) -> None:
        """One round. When the truth cannot be read the events stay, and the next round comes after a pause."""
        self._rung.clear()
        self.rounds += 1
        with bound_contextvars(round=self.rounds):
            await self._round()

    async def _round(self) -> None:
        events, self._inbox = self._inbox, {}
        began = time.monotonic()
        try:
            snapshot = await self._observe(learning=needs_learning(events))
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
        for command in handle(list(events), snapshot, self.policy):
            self._start(command)
        # A look at a long queue takes its time; events come faster than that. Look at most half of the time.
        await asyncio.sleep(time.monotonic() - began)

    def _put_back(self, events: Iterable[Event]) -> None:
        for event in events:
            self.ring(event)
