"""The only thing that happens in a callback of the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from inspect import iscoroutinefunction

import structlog

from handlers.events import Event

log = structlog.get_logger(__name__)


class Doorbell:
    """Passes events on: the first at once, a burst of the same kind as one ring per `pause_s` seconds.

    A press is always followed by a ring. Nothing that goes wrong in `ring` reaches the caller. Raises TypeError for an
    asynchronous `ring`, which nobody would await.
    """

    def __init__(self, ring: Callable[[Event], None], *, pause_s: float = 0.1) -> None:
        if iscoroutinefunction(ring) or iscoroutinefunction(getattr(ring, "__call__", None)):  # noqa: B004 - its kind
            raise TypeError("A feed rings from a callback: `ring` has to be a plain function.")
        self._ring = ring
        self._pause_s = pause_s
        self._resting: dict[Event, bool] = {}
        """Events that have just rung, and whether they were pressed again since."""
        self._broken = False
        self.pressed_at: dict[Event, datetime] = {}
        """When each kind of event came last, whether it rang then or not."""

    def press(self, event: Event) -> None:
        """Ring now, or soon if it has just rung. Call it from the event loop."""
        self.pressed_at[event] = datetime.now(UTC)
        if event in self._resting:
            self._resting[event] = True
            return
        self._resting[event] = False
        asyncio.get_running_loop().call_later(self._pause_s, self._rested, event)
        try:
            self._ring(event)
        except Exception as error:  # the client's listener would end without a word
            if not self._broken:
                log.error("ringing failed", error=type(error).__name__, ring=type(event).__name__)  # noqa: TRY400
            self._broken = True
        else:
            self._broken = False

    def _rested(self, event: Event) -> None:
        if self._resting.pop(event):
            self.press(event)
