"""A training run that this worker holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import Any

import structlog

from daemon.errors import AmbaraError, PermanentError, TemporaryError, first_error
from daemon.learning.ledger import Ledger
from daemon.learning.ports import TrainingRun

log = structlog.get_logger(__name__)

GOODBYE_S = 3.0


class _LostError(Exception):
    """The run is another worker's."""


class HeldRun:
    """A run that this worker holds: renews its lease and tells its progress, and gives up when another has it."""

    def __init__(self, ledger: Ledger, run: TrainingRun, lease_s: float) -> None:
        self._ledger = ledger
        self._lease_s = lease_s
        self.run = run
        self.detail: dict[str, Any] = {"phase": "data"}
        self.fingerprint = ""
        """Of what came of it, once that is known."""

    def heard(self, progress: Mapping[str, Any]) -> None:
        """The newest figures; they reach the database with the next renewal."""
        self.detail |= progress

    async def held(self, work: Awaitable[Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
        """Do the work while the lease is kept. None if the run was lost to another worker."""
        result: Mapping[str, Any] | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                keeper = tasks.create_task(self._keep())
                result = await work
                keeper.cancel()
        except* _LostError:
            log.warning("another worker has the run now")
        except* AmbaraError as group:
            raise first_error(group) from None
        except* OSError as group:  # what each step does not foresee of the disk
            log.warning("the disk fails the training", error=repr(group.exceptions[0]))
            raise PermanentError("The state directory cannot be used: look after its disk.", reason="disk") from None
        return result

    async def let_go(self) -> None:
        """End the lease now, so that whoever comes next does not wait for it."""
        with suppress(AmbaraError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._ledger.let_go(self.run)

    async def _keep(self) -> None:
        told, since = dict[str, Any](), time.monotonic()
        while True:
            await asyncio.sleep(1.0)
            # A person who looks wants to see it move; the lease alone would be satisfied with less.
            pause = min(5.0, self._lease_s / 3) if self.detail != told else self._lease_s / 3
            if time.monotonic() - since < pause:
                continue
            told, since = dict(self.detail), time.monotonic()
            try:
                mine = await self._ledger.progress(self.run, told, self._lease_s)
            except TemporaryError as error:
                log.warning("cannot tell of the training", error=str(error))
                continue
            if not mine:
                raise _LostError
