"""Ctrl-C and SIGTERM as a wish that a long work looks at between its steps."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SAID = b"ambara: stopping after this step; the same again ends at once.\n"


@dataclass(slots=True)
class Stop:
    """Whether somebody wants an end."""

    signal: int | None = None

    def __call__(self) -> bool:
        """Somebody does."""
        return self.signal is not None

    @property
    def code(self) -> int:
        """The exit code of a process that ended by that signal, as shells give it."""
        return 128 + (self.signal or 0)


@contextmanager
def heeded() -> Iterator[Stop]:
    """In this block the first SIGINT or SIGTERM is a wish; the second does what it always does."""
    stop = Stop()
    # One that is ignored (nohup, a shell's background) stays so.
    usual = {n: found for n in (signal.SIGINT, signal.SIGTERM) if (found := signal.getsignal(n)) != signal.SIG_IGN}

    def give_back() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)

    def wish(number: int, _: FrameType | None) -> None:
        give_back()
        stop.signal = number
        os.write(2, SAID)  # print() must not be called from a handler: it may be what was interrupted

    for number in usual:
        signal.signal(number, wish)
    try:
        yield stop
    finally:
        give_back()
