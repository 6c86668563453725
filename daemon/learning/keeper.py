"""Removes with time what nobody needs any more, so that a daemon can be left alone for years."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import structlog

from daemon.errors import AmbaraError, PermanentError
from daemon.learning.ledger import Ledger
from daemon.learning.ports import Version
from daemon.learning.retention import chosen
from daemon.learning.sources import Sources
from daemon.sections import RetentionSettings

log = structlog.get_logger(__name__)

LOOKED_AT = 2_000
"""Rows that one call looks at: a fraction of a second for the database, however large the log of drafts is ..."""
CALLS = 50
"""... and so many calls in a turn. The next one goes on from there."""
PAUSE_S = 0.2
"""Between two calls, for people."""
DAY_S = 86_400.0


class Keeper:
    """Keeps what the settings, the database's stages and this process's own work ask for. The rest goes."""

    def __init__(
        self, ledger: Ledger, sources: Sources, settings: RetentionSettings, loaded: Callable[[], int | None]
    ) -> None:
        """`loaded`: tells which version is in memory."""
        self._ledger = ledger
        self._sources = sources
        self._registry = sources.registry
        self._settings = settings
        self._loaded = loaded
        self._one_at_a_time = asyncio.Lock()
        self._after: int | None = None
        """The draft that the last call had come to; None: all were looked at."""

    async def turn(self) -> None:
        """Remove what has become too much since the last turn. Raises nothing: the next one comes."""
        await self.weights()
        try:
            await self._rows()
        except AmbaraError as error:
            log.warning("cannot tidy up", what="the database", error=str(error))

    async def weights(self, *, further: bool = True) -> None:
        """Remove weights and data of versions that nobody will want back; without `further`, also of those that are
        kept for good measure. Raises nothing: without it, the disk is only fuller."""
        try:
            async with self._one_at_a_time:
                await self._weights(self._settings.versions if further else 0)
        except (AmbaraError, OSError) as error:
            log.warning("cannot tidy up", what="old versions", error=type(error).__name__)

    async def need_room(self, model: Path) -> None:
        """Make sure that a training from `model` has room: what is kept for good measure makes way for it.

        Raises `PermanentError` (``disk-full``) if that is not enough.
        """
        try:
            await asyncio.to_thread(self._registry.need_room, model)
        except PermanentError as error:
            if error.reason != "disk-full":
                raise
            await self.weights(further=False)
            await asyncio.to_thread(self._registry.need_room, model)

    async def _weights(self, most: int) -> None:
        sizes = await asyncio.to_thread(self._registry.sizes)  # takes its time, so it comes before the questions
        used = await self._ledger.in_use()
        versions = await self._ledger.versions()
        used |= await asyncio.to_thread(self._foreign, sizes, versions)
        used |= self._sources.in_use | {number for number in [self._loaded()] if number}  # last: it changes by itself
        limit = self._settings.gibibytes * 2**30
        kept = chosen(versions, used, sizes, most=most, limit=limit)
        newest = max((version.id for version in versions), default=0)
        gone = sorted(sizes.keys() - kept)
        await asyncio.to_thread(self._registry.retain, kept, newest)
        await asyncio.to_thread(self._registry.drop_logs, kept, self._settings.logs_days * DAY_S)
        if gone:
            log.info("old versions removed", versions=gone, mebibytes=sum(sizes[number] for number in gone) >> 20)

    def _foreign(self, numbers: Iterable[int], versions: Sequence[Version]) -> set[int]:
        """Versions on this disk that are none of this database's: it was emptied or restored, or the state directory
        came from another project. They are for a person to remove."""
        rows = {version.id: version for version in versions}
        return {number for number in numbers if number not in rows or not self._is(rows[number])}

    def _is(self, version: Version) -> bool:
        """Whether a version's folder is of the run that its row tells of, by what it was made of or by its mark."""
        facts = self._registry.read_facts(version.id) or {}
        told = all(version.detail.get(name) == fact for name, fact in facts.items())
        return told or self._registry.owner(version.id) == version.fingerprint

    async def _rows(self) -> None:
        samples = await self._ledger.forget_samples(LOOKED_AT)
        drafts = 0
        for _ in range(CALLS if self._settings.drafts_days else 0):
            gone, self._after = await self._ledger.forget_drafts(self._settings.drafts_days, self._after, LOOKED_AT)
            drafts += gone
            if self._after is None:
                break
            await asyncio.sleep(PAUSE_S)
        if drafts or samples:
            log.info("old rows removed", drafts=drafts, samples=samples)
