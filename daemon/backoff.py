"""How long to wait after failures in a row."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from daemon.errors import TemporaryError

log = structlog.get_logger(__name__)
T = TypeVar("T")


def backoff(failures: int, *, first_s: float = 1.0, most_s: float = 20.0) -> float:
    """Seconds: doubling from `first_s` up to `most_s`, between half and all of it at random, so that many daemons
    that lost the same server do not come back in the same instant. The exponent is clamped: outages last days."""
    return min(most_s, first_s * 2.0 ** min(max(failures - 1, 0), 16)) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


async def patiently(ask: Callable[[], Awaitable[T]], what: str) -> T:
    """Ask until there is an answer, however long `what` is away."""
    failures = 0
    while True:
        try:
            answer = await ask()
        except TemporaryError as error:
            failures += 1
            pause = backoff(failures)
            log.warning("waiting", what=what, reason=error.reason, error=str(error), again_in_s=round(pause, 1))
            await asyncio.sleep(pause)
        else:
            if failures:
                log.info("waited", what=what, failures=failures)
            return answer
