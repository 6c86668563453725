"""From the database and this process to the snapshot that decisions look at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import structlog

from daemon.clips import ClipStore
from daemon.errors import TemporaryError
from daemon.learning.ledger import Ledger
from daemon.learning.registry import Registry
from handlers.commands import Lane
from handlers.snapshot import Learning, Snapshot

log = structlog.get_logger(__name__)


class Observer:
    """Reads the truth, once for each round of decisions."""

    def __init__(
        self,
        store: ClipStore,
        ledger: Ledger,
        registry: Registry,
        loaded: Callable[[], int | None],
        busy: Callable[[], frozenset[Lane]],
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._registry = registry
        self._loaded = loaded
        self._busy = busy

    async def observe(self, *, learning: bool) -> Snapshot:
        """The truth as it is now, with what the learning loop looks at if `learning`.

        Raises `TemporaryError` when the database is away, or cannot count all corrections in the time that it gives a
        statement.
        """
        found = await observe_learning(self._ledger, self._registry) if learning else None
        live, ready = await self._store.snapshot()
        # What runs here is read last: it may have changed while the database was asked.
        return Snapshot(live=live, loaded=self._loaded(), ready=ready, busy=self._busy(), learning=found)


async def observe_learning(ledger: Ledger, registry: Registry) -> Learning:
    """What the learning loop's decisions look at, as this host sees it."""
    training, candidate = await ledger.observe()
    try:
        compared = await ledger.edits.compared()
    except TemporaryError as error:  # what it decides, a way back, can wait; training and promoting need not
        log.warning("cannot compare what people change", reason=error.reason, error=str(error))
        compared = None
    if candidate:
        here = await asyncio.to_thread(registry.whole, candidate.version)
        candidate = replace(candidate, here=here)
    edits = None
    if compared:
        edits, kind = compared
        edits = replace(edits, here=kind != "trained" or await asyncio.to_thread(registry.whole, edits.before))
    hour = datetime.now().astimezone().hour
    return Learning(training=training, candidate=candidate, hour=hour, edits=edits)
