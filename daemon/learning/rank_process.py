"""One of several processes that train together, as whoever started it sees it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired

from daemon.learning.machines import Event

CAUSE_S = 1.0
"""One ends, and the others notice: so long it is waited for who says why."""


class RankProcess:
    """One of them."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str]) -> None:
        self._popen = Popen(  # noqa: S603 - this interpreter and this program once more
            [sys.executable, "-P", *arguments], stdin=DEVNULL, stdout=PIPE, env=environment
        )
        assert self._popen.stdout
        self.output = self._popen.stdout
        self.last: Event | None = None
        """Its last word, once it has said it."""
        self.mute = False
        """Whether it will say nothing more."""
        self._half = b""

    def heard(self) -> list[Event]:
        """What it has said meanwhile."""
        chunk = os.read(self.output.fileno(), 1 << 16)
        self.mute = not chunk
        *lines, self._half = (self._half + chunk).split(b"\n")
        events: list[Event] = [json.loads(line) for line in lines]
        self.last = next((event for event in events if event["event"] != "progress"), self.last)
        return events

    @property
    def failed(self) -> bool:
        """Whether the others can end as well."""
        return self.last["event"] == "failed" if self.last else self.mute

    def ask_to_stop(self) -> None:
        self._popen.terminate()

    def status(self) -> int | None:
        """Its exit status; None while it has none."""
        with suppress(TimeoutExpired):
            return self._popen.wait(CAUSE_S)
        return None

    def end(self) -> None:
        """Kill it if it lives, and reap it."""
        self._popen.kill()
        self._popen.wait()
        self.output.close()
