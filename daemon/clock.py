"""What happens every so often, whatever the wall clock does.

APScheduler keeps its appointments by the wall clock: set back by a day, it would keep still for a day; set forward by
years, as on a machine without a clock battery, it would count every turn that it has missed. So turns are counted from
now and not from the turn before, and a jump of the clock makes everything due at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from inspect import isawaitable
from typing import Self

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 2.0
"""How often the wall clock is compared with the monotonic one: by so much a turn can be late after a jump."""
JUMP_S = 2.0
"""Seconds by which the two may drift apart before it counts as a jump. The machine's sleep is one, too."""


class Clock:
    """Calls back until it is left. Enter it inside a running event loop."""

    def __init__(self) -> None:
        self._scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        )
        self._offset_s = 0.0
        self._look_handle: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        # It tells of every turn, and of one that is cancelled at the end as of an error.
        logging.getLogger("apscheduler").setLevel(logging.WARNING)
        logging.getLogger("apscheduler.executors").setLevel(logging.CRITICAL)
        self._scheduler.start()
        self._offset_s = offset_s()
        self._look()
        return self

    def __exit__(self, *_: object) -> None:
        if self._look_handle:
            self._look_handle.cancel()
        self._scheduler.shutdown(wait=False)

    def every(
        self, seconds: float, jitter_fraction: float, callback: Callable[[], Awaitable[None] | None], name: str
    ) -> None:
        """Call `callback` in the event loop every `seconds`, each time give or take `jitter_fraction` of it.

        The first turn comes after one such pause. A turn that comes while the one before is still at work is left out;
        one that fails is logged, and the next comes as usual.
        """

        async def turn() -> None:
            await _safely(callback, name)

        self._scheduler.add_job(turn, _Every(seconds, jitter_fraction), id=name, name=name)

    def _look(self) -> None:
        jumped_s = offset_s() - self._offset_s
        if abs(jumped_s) > JUMP_S:
            self._offset_s += jumped_s
            log.warning("the wall clock jumped; everything is due now", seconds=round(jumped_s, 1))
            for job in self._scheduler.get_jobs():
                job.modify(next_run_time=datetime.now(UTC))
        self._look_handle = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)


class _Every(BaseTrigger):  # type: ignore[misc]  # the package has no types
    """A turn after each pause. The pause is counted from now, so that none has to be caught up with."""

    def __init__(self, seconds: float, jitter_fraction: float) -> None:
        self._range_s = (seconds * (1.0 - jitter_fraction), seconds * (1.0 + jitter_fraction))

    def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime:
        return now + timedelta(seconds=random.uniform(*self._range_s))  # noqa: S311 - no secret


def offset_s() -> float:
    """Seconds between the wall clock and the monotonic one. It only changes when the wall clock is set."""
    return datetime.now(UTC).timestamp() - time.monotonic()


async def _safely(callback: Callable[[], Awaitable[None] | None], name: str) -> None:
    try:
        result = callback()
        if isawaitable(result):
            await result
    except Exception:
        log.exception("a turn of the clock failed", turn=name)
