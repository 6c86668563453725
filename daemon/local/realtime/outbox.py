"""What waits to be sent to one client: in order, bounded, each frame not before its time."""

from __future__ import annotations

import asyncio
import time
from collections import deque


class OutboxFullError(Exception):
    """The client reads too slowly."""


class Outbox:
    """A queue of encoded frames with a bound on their number and on their octets."""

    def __init__(self, *, max_frames: int, max_bytes: int) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._items: deque[tuple[float, str, int]] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()

    def put(self, text: str, *, delay_s: float = 0.0) -> None:
        """Raises `OutboxFullError`."""
        size = len(text.encode())
        if len(self._items) >= self._max_frames or self._bytes + size > self._max_bytes:
            raise OutboxFullError
        self._items.append((time.monotonic() + delay_s, text, size))
        self._bytes += size
        self._filled.set()

    async def get(self) -> str:
        """The next frame, once it is due."""
        while not self._items:
            self._filled.clear()
            await self._filled.wait()
        due = self._items[0][0]
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        _, text, size = self._items.popleft()
        self._bytes -= size
        return text
