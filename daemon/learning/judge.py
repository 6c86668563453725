"""Compares a candidate with the live version, in a child process, on recordings that neither was trained on."""

from __future__ import annotations

import asyncio
from collections import Counter

import structlog

from daemon.backoff import backoff, patiently
from daemon.errors import PermanentError, TemporaryError
from daemon.learning.job import EvaluateJob
from daemon.learning.ledger import Ledger
from daemon.learning.ports import ChildDone, ChildFailed, ChildStopped
from daemon.learning.process import run_child
from daemon.learning.rows import comparison
from daemon.learning.sources import Sources
from daemon.sections import PromotionSettings
from handlers.commands import Evaluate
from handlers.events import EvaluationFinished, Event, ModelRejected

log = structlog.get_logger(__name__)

TRIES = 3
"""Of one candidate by one process, where nobody can say whose fault it is that a child died or hung."""
NOT_ITS_FAULT = frozenset({"live", "anchor", "out-of-memory", "disk-full", "machine", "killed", "cannot-start"})
"""Why a comparison failed, where a candidate is never turned down for it."""
PAUSE_S = 300.0
"""The longest before such a comparison begins anew: each takes the device, or a processor, for a while."""


class Judge:
    """Carries out `Evaluate`."""

    def __init__(self, ledger: Ledger, sources: Sources, settings: PromotionSettings) -> None:
        self._ledger = ledger
        self._sources = sources
        self._settings = settings
        self._failed: Counter[int] = Counter()
        self._put_off: Counter[int] = Counter()

    async def evaluate(self, command: Evaluate) -> Event | None:
        """Run both over the held-out clips and store how they compare. None: it could not be done this time.

        Raises `TemporaryError` when the database is away, and for whatever is `NOT_ITS_FAULT`. What cannot be loaded or
        heard is turned down.
        """
        with self._sources.using(command.version, command.against):
            return await self._evaluate(command)

    async def _evaluate(self, command: Evaluate) -> Event | None:
        registry = self._sources.registry
        live = await self._ledger.version(command.against)
        candidate = await self._ledger.version(command.version)
        if live is None or candidate is None:
            return None
        try:
            candidate_options = await asyncio.to_thread(self._sources.options, candidate)
        except PermanentError as error:
            return await self._reject(command.version, str(error))
        try:
            live_options = await asyncio.to_thread(self._sources.options, live)
        except PermanentError as error:
            return await self._in_vain(command.version, "live", str(error))
        folder = registry.folder(command.version)
        job = EvaluateJob(
            live={"family": self._sources.family, "options": live_options},
            candidate={"family": self._sources.family, "options": candidate_options},
            data=folder / "data",
            anchor=self._settings.anchor,
            against=command.against,
            confidence=self._settings.confidence,
            out=folder / "evidence.json",
        )
        log.info("comparing", against=command.against)
        end = await run_child(job.write(folder / "evaluate.json"), folder / "evaluate.log", lambda _: None)
        match end:
            case ChildDone():
                found = comparison(end.result["comparison"])
                assert found is not None
                # It took minutes: an outage of the database is no reason to do it again.
                await patiently(lambda: self._ledger.evaluated(command.version, found), "Supabase")
                log.info(
                    "compared",
                    against=command.against,
                    live_wer=round(found.live_wer, 4),
                    candidate_wer=round(found.candidate_wer, 4),
                    gain_low=round(found.gain_low, 4),
                    clips=found.clips,
                )
                return EvaluationFinished()
            case ChildFailed():
                return await self._in_vain(command.version, end.reason, end.message)
            case ChildStopped():
                return None

    async def _in_vain(self, version: int, reason: str, message: str) -> Event | None:
        """It could not be compared. Turned down if that is its own fault, or may be, after too many tries."""
        if reason in NOT_ITS_FAULT:
            self._put_off[version] += 1
            await asyncio.sleep(backoff(self._put_off[version], most_s=PAUSE_S))
            raise TemporaryError(message, reason=reason)
        log.warning("comparison failed", reason=reason, error=message)
        self._failed[version] += 1
        if reason == "candidate" or self._failed[version] >= TRIES:
            return await self._reject(version, f"it could not be judged: {message}")
        return None

    async def _reject(self, version: int, reason: str) -> Event:
        await self._ledger.reject(version, reason)
        log.warning("rejected", why=reason)
        return ModelRejected()
