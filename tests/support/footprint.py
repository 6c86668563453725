"""How large a daemon is, as the machine that it runs on sees it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Self

import psutil

_POOL = min(32, (os.cpu_count() or 1) + 4)
"""Threads of the pool that an event loop has by default."""
_CONNECTIONS = 16 + 1 + 2
"""To the gateway, at most; to Realtime; and what is being closed."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Sizes at one moment."""

    rss_mb: float
    files: int
    """Without those that are connections."""
    connections: int
    threads: int
    children: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """Of a process that runs, with its children's memory."""
        process = psutil.Process(pid)
        children = process.children(recursive=True)
        rss = process.memory_info().rss + sum(_rss(child) for child in children)
        connections = len(process.net_connections("tcp"))
        return cls(rss / 2**20, process.num_fds() - connections, connections, process.num_threads(), len(children))

    def grown(self, now: Footprint, *, share: float = 0.05, rss_mb: float = 0.0) -> list[str]:
        """What is larger `now` than it may be: memory by `share` or `rss_mb`, files by 2, children by 1.

        Connections are kept alive for a while, as many as calls have met, and never more than there is room for. So it
        is with the event loop's threads for short work.
        """
        found = []
        if now.rss_mb > max(self.rss_mb * (1 + share), self.rss_mb + rss_mb):
            found.append(f"memory {self.rss_mb:.0f} -> {now.rss_mb:.0f} MB")
        for name, most in (("files", 2), ("threads", _POOL), ("children", 1)):
            before, after = getattr(self, name), getattr(now, name)
            if after > before + most:
                found.append(f"{name} {before} -> {after}")
        if now.connections > _CONNECTIONS:
            found.append(f"connections {self.connections} -> {now.connections}")
        return found


def _rss(child: psutil.Process) -> int:
    try:
        return int(child.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
