"""What the status page is told of a daemon, from before its model is loaded."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from daemon.config import Settings
from daemon.database import Database
from daemon.learning.loop import Loop
from daemon.parts import policy_of
from daemon.pulse import Pulse
from daemon.redaction import Redactor
from daemon.status.here import Here
from daemon.wiring import Parts
from handlers.policy import Policy


class Shown:
    """Serves the page. `parts` comes when the daemon is at work."""

    def __init__(self, settings: Settings, worker: str, pulse: Pulse) -> None:
        self._settings = settings
        self._worker = worker
        self._pulse = pulse
        self._started_at = datetime.now(UTC)
        self.parts: Parts | None = None

    async def serve(self, database: Database, loop: Loop, tasks: asyncio.TaskGroup) -> None:
        """Serve until cancelled, or give up without a port; whatever becomes of the page, nothing is raised."""
        from daemon.status.page import Page  # a daemon without a page does without its packages
        from daemon.status.server import serve
        from daemon.status.truth import Questions, Watch

        redact = Redactor(self._settings.secrets())
        watch = Watch(Questions(database, loop.ledger, redact), tasks)
        page = Page(watch, loop.sources.registry, self._here, self._policy, redact)
        await serve(page.app(self._settings.status.host), self._settings.status)

    def _here(self) -> Here:
        if self.parts:
            return self.parts.here(self._started_at)
        pulse = self._pulse
        return Here(
            worker=self._worker,
            started_at=self._started_at,
            doing=pulse.doing,
            hung=pulse.hung,
            lag_s=pulse.worst_s,
            tasks=pulse.tasks,
        )

    def _policy(self) -> Policy:
        return self.parts.dispatcher.policy if self.parts else policy_of(self._settings)
