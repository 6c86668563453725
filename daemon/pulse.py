"""The event loop's pulse: how late it is, and what the service manager hears of it.

A daemon that hangs is alive and useless: whoever watches it has to see the difference. It lives as long as its loop
keeps time, the model answers and the sweep comes round; a database that is away changes nothing about that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import structlog

from daemon.notify import Notifier

log = structlog.get_logger(__name__)

BEAT_S = 0.5
BLOCKED_S = 1.0
"""Seconds of lateness that a log line is worth: no step of the daemon may hold the loop for so long."""
HUNG_S = 5.0
"""Seconds of lateness at which a beat is no sign of life."""
REMEMBERED_S = 30.0
"""For so long, and up to twice as long, the worst lateness is shown: who looks now and then has to see it."""
START_S = 60.0
"""A start may take minutes. The service manager is asked for so many seconds, again and again."""


class Pulse:
    """Beats until it is left. Enter it inside a running event loop.

    `overdue_s`: by how many seconds the model has outlasted all that its work may take; 0 while it has not.
    """

    def __init__(self, notifier: Notifier, overdue_s: Callable[[], float]) -> None:
        self._notifier = notifier
        self._overdue = {"the model": overdue_s}
        self._status = ""
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._starting = True
        self._stopping = False
        self._hung = ""
        self._every_s = min(START_S, notifier.watchdog_s or START_S) / 3
        self._tell_at = 0.0
        self._worst = [0.0, 0.0]
        """Of this stretch of time, and of the one before."""
        self._stretch_ends = self._loop.time() + REMEMBERED_S

    def __enter__(self) -> Self:
        self._tell()
        self._plan()
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle:
            self._handle.cancel()

    @property
    def tasks(self) -> int:
        """How many tasks the loop has."""
        return len(asyncio.all_tasks(self._loop))

    @property
    def worst_s(self) -> float:
        """The worst lateness of late, seconds."""
        return max(self._worst)

    @property
    def hung(self) -> str:
        """What hangs, in words; empty while nothing does."""
        return self._hung

    @property
    def doing(self) -> str:
        """What the service manager was last told."""
        return self._status

    def watch(self, name: str, overdue_s: Callable[[], float]) -> None:
        """Something else that must not hang; `overdue_s` as above."""
        self._overdue[name] = overdue_s

    def ready(self, status: str) -> None:
        """The daemon is at work."""
        self._starting = False
        self._status = status
        self._notifier.ready(status)

    def say(self, status: str) -> None:
        """What it is doing now."""
        if status != self._status and not (self._starting or self._stopping):
            self._status = status
            self._notifier.status(status)

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """The settings are read again in this block. A daemon that is not ready yet does not become so by that."""
        if not (self._starting or self._stopping):
            self._notifier.reloading()
        try:
            yield
        finally:
            if not (self._starting or self._stopping):
                self._notifier.ready(self._status)

    def starting(self, what: str) -> None:
        """What the start is at."""
        self._status = f"starting: {what}"
        self._notifier.status(self._status)

    def stopping(self, within_s: float) -> None:
        """The daemon is shutting down, and wants so many seconds for it."""
        self._starting, self._stopping = False, True
        self._notifier.stopping(within_s)

    def _plan(self) -> None:
        beat_s = min(BEAT_S, self._every_s)
        self._due = self._loop.time() + beat_s
        self._handle = self._loop.call_later(beat_s, self._beat)

    def _beat(self) -> None:
        late_s = self._loop.time() - self._due
        if self._loop.time() >= self._stretch_ends:
            self._worst = [0.0, self._worst[0]]
            self._stretch_ends = self._loop.time() + REMEMBERED_S
        self._worst[0] = max(self._worst[0], late_s)
        if late_s > BLOCKED_S:
            log.warning("the event loop was blocked", seconds=round(late_s, 1))
        if late_s < HUNG_S and self._loop.time() >= self._tell_at:
            self._tell()
        self._plan()

    def _tell(self) -> None:
        hung = next(((name, late_s) for name, of in self._overdue.items() if (late_s := of()) > 0), None)
        if hung and not self._hung:
            log.error(" ".join((hung[0], "hangs")), overdue_s=round(hung[1], 1))
        self._hung = hung[0] if hung else ""
        if hung:
            return
        self._tell_at = self._loop.time() + self._every_s
        if self._starting:
            self._notifier.starting(START_S)
        if self._notifier.watchdog_s:
            self._notifier.alive()
