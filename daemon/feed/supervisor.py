"""Keeps a connection to Realtime alive by building new ones, for ever."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog

from daemon.feed.canary import Canary
from daemon.feed.connection import Connection
from daemon.feed.doorbell import Doorbell
from daemon.feed.loss import FeedState, Loss
from daemon.feed.settings import FeedSettings
from daemon.redaction import Redactor
from handlers.events import ClipsChanged, Event

log = structlog.get_logger(__name__)


class Feed:
    """Rings `ClipsChanged` when clips change, and `SweepDue` whenever something may have been missed.

    `ring` is called from the event loop and has to be cheap; `beat` writes this daemon's row of `ambara_daemons` and
    returns the beat's number. Raises TypeError for an asynchronous `ring`.
    """

    def __init__(
        self, settings: FeedSettings, ring: Callable[[Event], None], beat: Callable[[], Awaitable[int]]
    ) -> None:
        self._settings = settings
        self._bell = Doorbell(ring)
        self._canary = Canary(beat, every_s=settings.canary_s, timeout_s=settings.canary_timeout_s)
        self._redact = Redactor((settings.key, settings.apikey or ""))
        self._live_at: float | None = None
        self.state = FeedState.CONNECTING
        self.reason: str | None = None
        """One sentence while the state is not LIVE, with the remedy where there is one; None while nothing failed."""
        self.since = datetime.now(UTC)
        """When the state became what it is."""
        self.proven_at: datetime | None = None
        """When a change of this daemon's own last came back."""
        self.generation = 0
        """Connections tried so far."""

    @property
    def heard_at(self) -> datetime | None:
        """When somebody's change of a clip was last heard."""
        return self._bell.pressed_at.get(ClipsChanged())

    async def run(self) -> None:
        """Listen for ever. Nothing that happens out there ends this; cancelling it takes at most a few seconds."""
        hold_loggers()
        failures = 0
        while True:
            self.generation += 1
            lost = await self._connection()
            lasted = self._live_at is not None and time.monotonic() - self._live_at >= self._settings.canary_s
            failures = 0 if lasted else failures + 1
            self._become(lost.state, self._redact(lost.reason))
            await asyncio.sleep(pause(failures, self._settings.backoff_max_s))

    async def _connection(self) -> Loss:
        self._live_at = None
        try:
            return await Connection(self._settings, self._bell, self._canary, self._prove).run()
        except Exception as error:  # a feed is a convenience: it never ends the daemon
            kind, place = _whence(error)
            # Without its message: that may hold a row, or the address with the key.
            log.error("the feed failed in an unforeseen way", error=kind, at=place)  # noqa: TRY400
            return Loss(FeedState.CONNECTING, f"The feed failed in an unforeseen way ({kind}).")

    def _prove(self) -> None:
        if self._live_at is None:
            self._live_at = time.monotonic()
        self.proven_at = datetime.now(UTC)
        self._become(FeedState.LIVE, None)

    def _become(self, state: FeedState, reason: str | None) -> None:
        if (state, reason) == (self.state, self.reason):
            return
        if state is not self.state:
            self.since = datetime.now(UTC)
        self.state, self.reason = state, reason
        if reason is None:
            log.info("feed", state=state.value)
        else:
            log.warning("feed", state=state.value, why=reason)


def pause(failures: int, most_s: float) -> float:
    """Seconds before the next try after `failures` in a row: all of the range at random, so that the daemons that lost
    the same server come back one by one. The exponent is clamped: outages last days."""
    return random.uniform(0.0, min(most_s, 2.0 ** min(failures, 16)))  # noqa: S311 - no secret


def hold_loggers() -> None:
    """Silence the loggers that write rows and keys: the client logs a whole row, as an error, when it cannot read the
    frame, and the address that the websocket logs has the key in it. What they have to say arrives here anyway."""
    logging.getLogger("realtime").setLevel(logging.CRITICAL)
    logging.getLogger("websockets.client").setLevel(logging.WARNING)


def _whence(error: BaseException) -> tuple[str, str]:
    """Type and place of the innermost error, without its message."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return type(error).__name__, place
