"""The mean number of events per second over the last buckets, as the real server counts it.

The mean is taken over finished buckets only: a burst is delivered, and what follows it is dropped.
"""

from __future__ import annotations

from collections import deque


class EventRate:
    """Counts events in buckets of `bucket_s` seconds and remembers `buckets` of them."""

    def __init__(self, *, limit: float, bucket_s: float, buckets: int, now: float) -> None:
        self._limit = limit
        self._bucket_s = bucket_s
        self._finished: deque[int] = deque(maxlen=buckets)
        self._current = 0
        self._ends = now + bucket_s

    def add(self, events: int, now: float) -> None:
        self._advance(now)
        self._current += events

    def exceeded(self, now: float) -> bool:
        """Whether the mean, in events per second, has reached the limit."""
        self._advance(now)
        if not self._finished:
            return False
        return sum(self._finished) / (len(self._finished) * self._bucket_s) >= self._limit

    def _advance(self, now: float) -> None:
        if now >= self._ends + self._bucket_s * (self._finished.maxlen or 0):
            # Everything remembered is older than the window.
            self._finished.clear()
            self._finished.append(0)
            self._current = 0
            self._ends = now + self._bucket_s
        while now >= self._ends:
            self._finished.append(self._current)
            self._current = 0
            self._ends += self._bucket_s
