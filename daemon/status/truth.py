"""What the database tells the page: read seldom, only while somebody looks, and once for all who look.

A read costs the database as much as `ambara status` does, which is a lot where a million clips wait. So the next one
comes after `EVERY_S`, or after `SHARE` times as long as the one before took. A database that is away leaves the last
truth, with its age.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog

from daemon.database import Database
from daemon.errors import AmbaraError
from daemon.learning.ledger import Ledger
from daemon.learning.ports import Version
from handlers.snapshot import EditRates

log = structlog.get_logger(__name__)

EVERY_S = 15.0
SHARE = 20.0
PATIENCE_S = 3.0
"""Seconds that somebody who looks waits for a read; then the last truth is shown."""

_NAMED = re.compile(r"(the worst recording) \(.*\)(?= \d|$)", re.DOTALL)
"""As `daemon.asr.judging.harm` names that guard: before its figures, or alone."""

Rates = Sequence[Mapping[str, Any]]
"""Of `ambara_edit_rates`: what people changed in the drafts of a version, by week."""
Redact = Callable[[str], str]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Truth:
    """One read of the database."""

    status: Mapping[str, Any]
    """Of `ambara_status`."""
    versions: tuple[Version, ...]
    history: Mapping[str, Any]
    """Of `ambara_history`; empty where the database does not tell it."""
    edit_rates: Rates
    edits: EditRates | None
    """The live version beside the one before; None where there was none."""
    read_at: datetime


@dataclass(frozen=True, slots=True)
class Look:
    """The last truth."""

    truth: Truth | None
    age_s: float
    """Seconds since it was read."""
    trouble: str
    """Why it could not be read again, in words; empty while it could."""


class Questions:
    """Asks the database. What it answers is free of secrets, and of the recordings that verdicts name."""

    def __init__(self, database: Database, ledger: Ledger, redact: Redact) -> None:
        self._database = database
        self._ledger = ledger
        self._redact: Redact = lambda text: unnamed(redact(text))

    async def __call__(self) -> Truth:
        """One read. Raises `AmbaraError`."""
        status = await self._database.call("ambara_status", {}, dict)
        versions = await self._ledger.versions()
        history = await _if_told(self._database.call("ambara_history", {}, dict), {})
        rates = await _if_told(self._ledger.edits.rates(), [])
        compared = await _if_told(self._ledger.edits.compared(), None)
        return Truth(
            status=redacted(status, self._redact),
            versions=tuple(_version(each, self._redact) for each in versions),
            history=redacted(history, self._redact),
            edit_rates=rates,
            edits=compared[0] if compared else None,
            read_at=datetime.now(UTC),
        )


class Watch:
    """Remembers the last truth and reads another when somebody looks and it is time."""

    def __init__(
        self,
        read: Callable[[], Awaitable[Truth]],
        tasks: asyncio.TaskGroup,
        *,
        every_s: float = EVERY_S,
        share: float = SHARE,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._read = read
        self._tasks = tasks
        self._every_s, self._share, self._patience_s = every_s, share, patience_s
        self._truth: Truth | None = None
        self._trouble = ""
        self._reading: asyncio.Task[None] | None = None
        self._read_at = 0.0
        self._due = 0.0

    async def look(self) -> Look:
        """The truth, at most so old; or the last one, where the database does not answer in time."""
        if self._reading is None and time.monotonic() >= self._due:
            self._reading = self._tasks.create_task(self._again(), name="status page")
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=self._patience_s)
        slow = "" if self._reading is None else "The database has not answered yet."
        return Look(self._truth, time.monotonic() - self._read_at, self._trouble or slow)

    async def _again(self) -> None:
        began = time.monotonic()
        try:
            self._truth = await self._read()
            self._read_at, self._trouble = time.monotonic(), ""
        except AmbaraError as error:
            self._trouble = str(error)
        except Exception as error:  # a page is a convenience: it never ends the daemon
            self._trouble = f"The database's answer cannot be understood ({type(error).__name__})."
            log.exception("the status cannot be read")
        finally:
            took_s = time.monotonic() - began
            self._due = time.monotonic() + max(self._every_s, self._share * took_s)
            self._reading = None


def unnamed(text: str) -> str:
    """Without the name of the recording that a guard, or a verdict by it, is about."""
    return _NAMED.sub(r"\1", text)


def redacted(value: Any, redact: Redact) -> Any:
    """The same JSON without secrets."""
    match value:
        case str():
            return redact(value)
        case Mapping():
            return {redact(str(key)): redacted(each, redact) for key, each in value.items()}
        case list() | tuple():
            return [redacted(each, redact) for each in value]
        case _:
            return value


def _version(version: Version, redact: Redact) -> Version:
    reason = version.reason and redact(version.reason)
    return replace(version, name=redact(version.name), reason=reason, detail=redacted(version.detail, redact))


async def _if_told(answer: Awaitable[T], otherwise: T) -> T:
    """What is told, or `otherwise` by a database that does not know the question or cannot answer it in time."""
    try:
        return await answer
    except AmbaraError as error:
        log.debug("not told", error=str(error))
        return otherwise
