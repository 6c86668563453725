"""Misbehaviour on command, so that a client's answer to each failure of the real server can be tried.

`inject` is for code in the same process; the bridge's HTTP route passes its JSON body to it. Two sorts of action:

At once, once: `close` (all sockets, with `code`: 1000, 1001, 1011, 1012), `cut` (TCP ends without a close frame),
`stale_close` (a `phx_close` for a join that is long over, to every joined channel), `deafen` (as after a long database
outage: joined channels hear nothing any more, a new join works), `expire_tokens` (now, on every channel), `clear`.

For `seconds`, or for `count` times, or until `clear`: `mute` (nothing goes out but heartbeat replies), `freeze`
(nothing is read or sent, not even pings), `drop` (changed rows vanish as over the rate limit; counts rows), `hollow`
("Subscribed", yet nothing flows; counts subscriptions), `deaf_after_outage` (the next loss of the database is final),
`delay_frames`, `delay_join_replies`, `delay_system` (by `delay_s` seconds; counts frames or joins), `refuse`
(handshakes, with `status`: 401, 500, 503), `lose_join_replies` (counts joins).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

COMMANDS = ("close", "cut", "stale_close", "deafen", "expire_tokens", "clear")
STATES = (
    "mute",
    "freeze",
    "drop",
    "hollow",
    "deaf_after_outage",
    "delay_frames",
    "delay_join_replies",
    "delay_system",
    "refuse",
    "lose_join_replies",
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One misbehaviour that is under way."""

    action: str
    until: float | None = None
    """By the monotonic clock, seconds; None for no end."""
    left: int | None = None
    """How often it still strikes; None for no limit."""
    delay_s: float = 0.0
    status: int = 503
    code: int = 1000


class Faults:
    """What a bridge is told to do wrong. One fault of each action at a time; a later one replaces it."""

    def __init__(self) -> None:
        self._active: dict[str, Fault] = {}
        self._changed = asyncio.Event()
        self._obey: Callable[[Fault], None] | None = None

    def connect(self, obey: Callable[[Fault], None]) -> None:
        """The bridge registers here what carries out the actions that happen at once."""
        self._obey = obey

    def inject(
        self,
        action: str,
        *,
        seconds: float | None = None,
        count: int | None = None,
        delay_s: float = 0.0,
        status: int = 503,
        code: int = 1000,
    ) -> None:
        """Begin to misbehave. Raises ValueError for an unknown action or a parameter out of range."""
        if action not in COMMANDS + STATES:
            raise ValueError(f"There is no action {action!r}; use one of {', '.join(COMMANDS + STATES)}.")
        numbers = (seconds, count, delay_s)
        if any(isinstance(number, bool) or (number is not None and not 0 <= number <= 86_400) for number in numbers):
            raise ValueError("Use numbers from 0 to 86400 for seconds, count and delay_s.")
        if count is not None and not isinstance(count, int):
            raise ValueError("Use a whole number for count.")
        if status not in (401, 500, 503) or code not in (1000, 1001, 1011, 1012):
            raise ValueError("Use status 401, 500 or 503, and code 1000, 1001, 1011 or 1012.")
        until = None if seconds is None else time.monotonic() + seconds
        fault = Fault(action, until, count, delay_s, status, code)
        if action == "clear":
            self._active.clear()
        elif action in STATES:
            self._active[action] = fault
        elif self._obey is not None:
            self._obey(fault)
        self._wake()

    def active(self, action: str) -> Fault | None:
        """The fault, if it is under way; its count is not touched."""
        fault = self._active.get(action)
        if fault is None or fault.left == 0 or (fault.until is not None and time.monotonic() >= fault.until):
            self._active.pop(action, None)
            return None
        return fault

    def take(self, action: str) -> Fault | None:
        """The fault, if it is under way; counts as one strike."""
        fault = self.active(action)
        if fault is not None and fault.left is not None:
            self._active[action] = replace(fault, left=fault.left - 1)
        return fault

    async def over(self, action: str) -> None:
        """Return when `action` is no longer under way."""
        while (fault := self.active(action)) is not None:
            await self.wait_for_change(None if fault.until is None else fault.until - time.monotonic())

    async def wait_for_change(self, timeout_s: float | None) -> None:
        """Return when faults were injected or cleared, or after `timeout_s` seconds."""
        changed = self._changed
        try:
            async with asyncio.timeout(timeout_s):
                await changed.wait()
        except TimeoutError:
            return

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def describe(self) -> dict[str, dict[str, float | int | None]]:
        """What is under way, for people: action to remaining seconds and strikes."""
        now = time.monotonic()
        return {
            action: {"seconds": None if fault.until is None else round(fault.until - now, 3), "count": fault.left}
            for action in STATES
            if (fault := self.active(action)) is not None
        }
