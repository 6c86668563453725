"""What people changed in the daemon's drafts: measured here, kept and summed in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import structlog

from daemon.asr.metrics import edits
from daemon.database import Database
from daemon.errors import AmbaraError
from daemon.learning.rows import edits_compared
from handlers.snapshot import EditRates

log = structlog.get_logger(__name__)

PAGE = 200
"""Corrections at once: texts of half a minute, twice."""
SETTLED = 500
"""Corrections that are taken out of the queue at once: people may want to change them meanwhile."""


class EditBook:
    """Each correction beside the draft that its person had before them.

    Methods raise `TemporaryError` when the database is away and `ConfigurationError` when it refuses.
    """

    def __init__(self, database: Database, bucket: str = "clips") -> None:
        self._database = database
        self._bucket = bucket

    async def turn(self) -> None:
        """Take out of the queue what is done, and measure what is not measured yet. Raises nothing: the next turn
        comes."""
        try:
            await self.settle()  # first: what cannot be measured is in nobody's way then
            if found := await self.measure():
                log.info("corrections measured", clips=found)
        except AmbaraError as error:
            log.warning("cannot measure corrections", reason=error.reason, error=str(error))

    async def measure(self) -> int:
        """Measure what is not measured yet, and return how many that were. Several daemons come to the same."""
        after: str | None = None
        total = 0
        while True:
            page = {"p_after": after, "p_limit": PAGE}
            found: list[dict[str, Any]] = await self._database.call("ambara_unmeasured", page, list)
            if found:
                rows = await asyncio.to_thread(_measured, found)
                total += await self._database.call("ambara_measured", {"p_rows": rows}, int)
                after = found[-1]["clip_id"]
            if len(found) < PAGE:
                return total

    async def settle(self) -> None:
        """Take out of the queue of corrections what was measured, and what was learned since the latest run began."""
        after: str | None = None
        while True:
            page = {"p_bucket": self._bucket, "p_after": after, "p_limit": SETTLED}
            after = await self._database.call("ambara_settle_corrections", page, _clip_or_none)
            if after is None:
                return

    async def rates(self) -> list[dict[str, Any]]:
        """By version and week: ``version``, ``week`` (its Monday), ``clips``, ``unchanged``, ``words``, ``word_edits``,
        ``characters``, ``character_edits``."""
        return await self._database.call("ambara_edit_rates", {}, list)

    async def compared(self) -> tuple[EditRates, str] | None:
        """The live version beside the one before, and that one's kind; None where there was none. `here` is False: only
        the host knows."""
        return await self._database.call("ambara_edits_compared", {}, edits_compared)


def _clip_or_none(found: str | None) -> str | None:
    return found


def _measured(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    taken_on = ("clip_id", "draft_id", "version", "recording", "corrected_at", "text_md5")
    return [{key: row[key] for key in taken_on} | asdict(edits(row["words"], row["draft"])) for row in found]
