"""What the checks look at, and what they tell one another."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.clips import ClipStore
from daemon.config import Settings
from daemon.database import Database
from daemon.errors import AmbaraError
from daemon.supabase_client import client_for, http_client


@dataclass(slots=True)
class Patient:
    """A project and a host, as the settings name them."""

    settings: Settings
    database: Database
    store: ClipStore
    """Under a worker's name of its own, which is its row in `ambara_daemons` while Realtime is tried."""
    db_url: str
    """Of SUPABASE_DB_URL; empty where it is not set."""

    refusal: AmbaraError | None = None
    """What the first question was answered with, if not with a role."""
    role: str | None = None
    pending: list[str] | None = None
    """Migrations that the database lacks; None where nobody could look."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The answer of `ambara_examine`."""
    asked_at: float = 0.0
    """Unix seconds of this host's clock when the database said `now`."""
    base: Path | None = None
    """The directory of the base model."""

    def model_options(self) -> dict[str, Any]:
        """As `families` wants them."""
        options = self.settings.model.model_dump(exclude={"family", "base"})
        return {"model": self.settings.model.base, **options}

    def migrate(self) -> str:
        """The command that brings tables and functions back. Only what is not recorded is applied without --again."""
        command = "ambara migrate" if self.pending else "ambara migrate --again"
        return command if self.db_url else f"SUPABASE_DB_URL=postgresql://… {command}"


@asynccontextmanager
async def admit(settings: Settings, db_url: str) -> AsyncIterator[Patient]:
    """Open what the checks need. Asks nothing yet."""
    async with http_client() as http:
        client = await client_for(settings.supabase, http)
        store = ClipStore(client, f"doctor-{secrets.token_hex(4)}")
        yield Patient(settings, Database(client), store, db_url)
