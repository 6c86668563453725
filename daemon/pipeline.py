"""The way of a clip through the daemon, one turn after the other, and what an interrupted turn owes.

Nothing that concerns a clip lives only here: what is lost in a crash is claimed again when its lease ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace

import structlog

from daemon.clips import ClipStore
from daemon.errors import AmbaraError, first_error
from daemon.loading import AudioAwayError, Loader, ReadAudio
from daemon.ports import Claim, Ears, PipelineSettings, Request, Tally
from daemon.turn import Turn
from daemon.writing import GIVE_BACK_S, Writer

log = structlog.get_logger(__name__)


class Pipeline:
    """Drafts clips on behalf of one worker."""

    def __init__(
        self,
        store: ClipStore,
        read: ReadAudio,
        ears: Ears,
        settings: PipelineSettings | None = None,
        beside: Collection[str] = (),
    ) -> None:
        """`beside`: runs whose audio does not lie in the bucket, and can be read while that is away."""
        self._store = store
        self._read = read
        self._ears = ears
        self._settings = settings or PipelineSettings()
        self._beside = tuple(beside)
        self._owed: dict[str, Claim] = {}
        """Claims of interrupted turns that could not be given back yet."""
        self._unsure = False
        """Whether one of those turns may have claimed what it does not know of."""
        self._lengths: dict[str, float] = {}
        """Clip id -> seconds, where the row tells too few: or every turn would find it out anew."""

    async def turn(self, request: Request, progress: Callable[[Tally], None] | None = None) -> Tally:
        """Draft what is ready. Returns what it came to; `progress` hears of every batch.

        Raises `TemporaryError` or `ConfigurationError` when the database or the storage is away or refuses. Whatever
        ends a turn, what it still holds is given back, or else is free again when the lease ends.
        """
        try:
            return await self._turn(request, progress)
        except AudioAwayError:
            if self._beside and request.runs is None:
                await self._turn(replace(request, runs=self._beside), progress)
            raise

    async def _turn(self, request: Request, progress: Callable[[Tally], None] | None) -> Tally:
        waiting = Loader(self._read, self._settings, self._lengths)
        writer = Writer(self._store, request, self._lengths, progress)
        newest = Loader(self._read, self._settings, self._lengths)
        turn = Turn(self._store, waiting, self._ears, self._settings, request, writer, newest)
        try:
            return await turn.run()
        except* AmbaraError as group:
            raise first_error(group) from None
        finally:
            if writer.refused:  # one line for all of them, with one of them: a broken run directory would flood the log
                log.info("clips not drafted", reasons=dict(writer.refused), clip=writer.such_as)
            self._owed |= writer.held
            self._unsure |= turn.asking > 0
            if not waiting:
                self._lengths.clear()
            with suppress(AmbaraError, TimeoutError):
                async with asyncio.timeout(GIVE_BACK_S):
                    await self.give_back()

    async def give_back(self) -> None:
        """Release what earlier turns held when they were interrupted. Raises as `turn` does.

        Nobody counts a claimed clip as ready, so nothing would be asked until the lease has ended and somebody rings.
        """
        if self._owed or self._unsure:
            await self._store.release(None if self._unsure else list(self._owed))
            self._owed, self._unsure = {}, False
