"""No kind of line floods the log: so many a minute, then a count of the others.

A kind is an event at a level from a logger; of another library's line, whose words may differ each time, it is the
place in the code. One kind never holds back another, and an error is never held back.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

log = structlog.get_logger(__name__)

WINDOW_S = 60.0
MOST = 100
"""Lines of a kind in its first minute."""
MOST_LATER = 10
"""In each further one, for as long as lines of this kind are held back."""
OF_ONE_THING = ("round", "run", "version", "clip")
"""Fields of the line under way, which are not those of the lines that were held back before."""
_LONGEST = 100

Kind = tuple[object, ...]


@dataclass(slots=True)
class _Window:
    """A minute of one kind."""

    began: float
    name: str
    level: int
    most: int
    passed: int = 0
    held: int = 0


class RateLimit(logging.Filter):
    """A filter for a handler. `settle` now and then, or the count waits for the next line, whatever that is."""

    def __init__(self, *, most: int = MOST, later: int = MOST_LATER, clock: Callable[[], float] = time.monotonic):
        super().__init__()
        self._most = most
        self._later = later
        self._clock = clock
        self._windows: dict[Kind, _Window] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record may pass."""
        if record.name == __name__:
            return True
        self.settle()
        if record.levelno >= logging.ERROR:
            return True
        kind, name = _kind(record)
        with self._lock:
            window = self._windows.setdefault(kind, _Window(self._clock(), name, record.levelno, self._most))
            if window.passed < window.most:
                window.passed += 1
                return True
            window.held += 1
            return False

    def settle(self, *, at_the_end: bool = False) -> None:
        """Tell how many lines were held back in the minutes that are over, or `at_the_end` in all of them."""
        now = self._clock()
        told: list[_Window] = []
        with self._lock:
            for kind, window in list(self._windows.items()):
                if now - window.began < WINDOW_S and not at_the_end:
                    continue
                del self._windows[kind]
                if window.held:
                    told.append(window)
                    self._windows[kind] = _Window(now, window.name, window.level, self._later)
        for window in told:
            context = contextvars.copy_context()
            context.run(structlog.contextvars.unbind_contextvars, *OF_ONE_THING)
            seconds = round(now - window.began)
            context.run(log.log, window.level, "lines held back", of=window.name, lines=window.held, seconds=seconds)


def _kind(record: logging.LogRecord) -> tuple[Kind, str]:
    """What is counted together, and how a person knows it again."""
    if isinstance(record.msg, dict):  # of our own logger
        event = str(record.msg.get("event"))
        return (record.name, record.levelno, event), event[:_LONGEST]
    place = (record.name, record.levelno, record.pathname, record.lineno)
    return place, f"{record.name}: {record.msg}"[:_LONGEST]
