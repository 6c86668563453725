"""What is found, and how a check says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from daemon.doctor.patient import Patient


class Verdict(StrEnum):
    """How a check ended."""

    WELL = "well"
    FAULT = "fault"
    UNCHECKED = "not checked"
    """Not asked for in the settings, or it needs what has a fault: no fault of its own."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `ambara doctor`."""

    check: str
    """What was checked."""
    found: str
    """One sentence."""
    verdict: Verdict = Verdict.WELL
    remedy: str | None = None
    """The SQL or the command that mends a fault; a line that no shell runs begins with ``#``."""


class Fault(Exception):  # noqa: N818 - what a check finds, not an error of ours
    """Something that a person has to mend: one sentence, and what mends it."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.remedy = remedy


class NotAsked(Exception):  # noqa: N818 - as above
    """There is nothing to check here, and this is why."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at. `look` returns what it found to be well, or raises `Fault` or `NotAsked`."""

    name: str
    look: Callable[[Patient], str | Awaitable[str]]
    needs: tuple[str, ...] = ()
    """Checks that come before: with a fault in one of them this one would only repeat it."""
    remedy: Callable[[Patient], str] = lambda _: "AMBARA_DEBUG=1 ambara doctor"
    """Mends whatever the daemon's own code complains of when `look` calls it."""
