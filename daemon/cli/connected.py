"""The database for commands that ask it one thing and end."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daemon.clips import ClipStore
    from daemon.config import Settings
    from daemon.learning.ledger import Ledger
    from daemon.supabase_client import AsyncClient

FOLLOW = "Running daemons follow within half a minute."


@dataclass(frozen=True, slots=True)
class Connected:
    """What a command asks."""

    client: AsyncClient
    store: ClipStore
    ledger: Ledger


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Connected]:
    """Reach the project. Raises `ConfigurationError` or `TemporaryError`, here or at the first question."""
    from daemon.clips import ClipStore
    from daemon.database import Database
    from daemon.learning.ledger import Ledger
    from daemon.supabase_client import client_for, http_client

    async with http_client() as http:
        client = await client_for(settings.supabase, http)
        worker = f"{socket.gethostname()}-{os.getpid()}-by-hand"
        ledger = Ledger(Database(client), worker, settings.supabase.bucket)
        yield Connected(client, ClipStore(client, worker), ledger)
