"""What is left on disk of versions that never came to be."""

from __future__ import annotations

import asyncio

import structlog

from daemon.backoff import patiently
from daemon.errors import AmbaraError
from daemon.learning.ledger import Ledger
from daemon.learning.registry import Registry

log = structlog.get_logger(__name__)


async def tidy(ledger: Ledger, registry: Registry) -> None:
    """Remove what a crash or a failed run left half done. Raises nothing: a full disk is no reason not to go on."""
    try:
        versions = await patiently(ledger.versions, "Supabase")
        training = {version.id for version in versions if version.stage == "training"}
        newest = max((version.id for version in versions), default=0)
        await asyncio.to_thread(registry.clean, training, newest)
    except (AmbaraError, OSError) as error:
        log.warning("cannot tidy up", error=type(error).__name__)
