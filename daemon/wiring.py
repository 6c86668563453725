"""The running parts of `ambara run`, wired to each other."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from typing import Any

import structlog

from daemon import logs
from daemon.clips import ClipStore
from daemon.config import Settings
from daemon.dispatcher import Dispatcher
from daemon.drafter import Drafter
from daemon.errors import AmbaraError
from daemon.executor import Executor
from daemon.feed import Feed, FeedSettings
from daemon.headline import headline
from daemon.learning.freezing import ReadAudio
from daemon.learning.loop import Loop
from daemon.observer import Observer
from daemon.parts import changed, pipeline_settings, policy_of
from daemon.pipeline import Pipeline
from daemon.pulse import Pulse
from daemon.status.here import FeedHere, Here
from handlers.commands import Lane
from handlers.drafting import why_not_draft
from handlers.events import ClipsChanged, Event, SweepDue
from handlers.snapshot import Snapshot

log = structlog.get_logger(__name__)


class Parts:
    """Dispatcher, executor, feed and learning loop of one daemon, and what it says of itself."""

    def __init__(
        self,
        settings: Settings,
        store: ClipStore,
        drafter: Drafter,
        pulse: Pulse,
        loop: Loop,
        read: ReadAudio,
        tasks: asyncio.TaskGroup,
        *,
        beside: Collection[str],
    ) -> None:
        """`beside`: as for `Pipeline`."""
        self._settings = settings
        self._store = store
        self._drafter = drafter
        self._pulse = pulse
        self._ready = False
        self._walked: str | None = None
        """The clip behind which the walk past all clips goes on."""
        self._blocked: str | None = None
        self.loop = loop
        self._seen: Snapshot | None = None
        pipeline = Pipeline(store, read, drafter, pipeline_settings(settings.drafting, drafter.describe()), beside)
        turns = asyncio.Lock()
        self._promoter = loop.promoter(drafter, turns, tasks)
        self._trainer = loop.trainer(read)
        self._executor = Executor(
            tasks,
            pipeline,
            lambda event: self.ring(event),  # noqa: PLW0108 - `ring` comes later
            turns,
            lambda: drafter.version,
            trainer=self._trainer,
            judge=loop.judge(),
            promoter=self._promoter,
        )
        self._observer = Observer(
            store, loop.ledger, loop.sources.registry, lambda: drafter.version, lambda: self._executor.busy
        )
        self.dispatcher = Dispatcher(self._observe, self._executor.start, policy_of(settings))
        self.ring = self.dispatcher.ring
        pulse.watch("drafting", lambda: 0.0 if drafter.working else self._executor.overdue_s())
        pulse.watch("the sweep", lambda: self.dispatcher.overdue_s(1.2 * settings.drafting.sweep_seconds))
        pulse.watch("counting corrections", self.dispatcher.count_overdue_s)
        self.feed: Feed | None = None
        if settings.realtime.enabled:
            feed = FeedSettings(
                url=settings.supabase.url,
                key=settings.supabase.key.get_secret_value(),
                apikey=settings.supabase.apikey.get_secret_value(),
                worker=store.worker,
                canary_s=settings.realtime.canary_seconds,
            )
            self.feed = Feed(feed, self._rung, self._canary)

    def take_up(self, settings: Settings) -> tuple[list[str], list[str]]:
        """Decide by these settings from now on. Returns what `changed` says of them."""
        told = changed(self._settings, settings)
        self._settings = settings
        self.dispatcher.policy = policy_of(settings)
        self.ring(SweepDue())
        return told

    def _rung(self, event: Event) -> None:
        """Somebody changed a clip: mostly a turn of drafting itself, which ends with the same question anyway."""
        if event != ClipsChanged() or Lane.DRAFT not in self._executor.busy:
            self.ring(event)

    @property
    def training(self) -> bool:
        """Whether a model is being made or judged here."""
        return Lane.WORK in self._executor.busy

    async def _observe(self, *, learning: bool) -> Snapshot:
        snapshot = await self._observer.observe(learning=learning)
        blocked = why_not_draft(snapshot) if snapshot.ready else None
        if blocked and self._promoter.trouble:
            blocked = f"{blocked}: {self._promoter.trouble}"
        if blocked != self._blocked and Lane.DRAFT not in snapshot.busy:
            self._blocked = blocked
            if blocked:
                log.warning("not drafting", why=blocked)
        self._seen = snapshot
        if not self._ready:
            self._ready = True
            self._pulse.ready(self._headline())
            log.info("ready", version=self._drafter.version, live=snapshot.live, clips_ready=snapshot.ready)
        self._pulse.say(self._headline())
        return snapshot

    def _headline(self, trouble: str = "") -> str:
        return headline(
            self._seen,
            trouble=trouble,
            blocked=self._blocked,
            feed=self.feed.state.value if self.feed else "off",
            training=self._trainer.progress,
        )

    def here(self, started_at: datetime) -> Here:
        """What this daemon knows of itself."""
        total, feed = self._executor.total, self.feed
        return Here(
            worker=self._store.worker,
            started_at=started_at,
            doing=self._pulse.doing,
            hung=self._pulse.hung,
            lag_s=self._pulse.worst_s,
            tasks=self._pulse.tasks,
            ready=self._ready,
            version=self._drafter.version,
            model=self._drafter.describe(),
            feed=FeedHere(feed.state.value, feed.reason, feed.since, feed.heard_at, feed.proven_at) if feed else None,
            written=total.written,
            dropped=total.dropped,
            failed=total.failed,
            busy=frozenset(lane.value for lane in self._executor.busy),
            blocked=self._blocked,
            trouble=self.dispatcher.trouble,
            training=self._trainer.progress,
        )

    async def beat(self) -> None:
        """Tell the service manager, the database and the log what this daemon is doing."""
        logs.settle()
        self._pulse.say(self._headline(self.dispatcher.trouble))
        if self.dispatcher.failures:
            return  # it is away, and asked often enough
        with suppress(AmbaraError):
            await self._canary()

    async def mend(self) -> None:
        """Put right what the database's queues say wrongly, and give back priorities that were set while
        ``useful_first`` was on. Until the database answers again, there is the next time."""
        with suppress(AmbaraError):
            while found := await self._store.mend_queue():
                log.warning("clips that the queue had missed", clips=found)
                self.ring(SweepDue())
        with suppress(AmbaraError):
            await self._walk()
        if self._store.useful_first:
            return
        given = 0
        with suppress(AmbaraError):
            while some := await self._store.give_back_priorities():
                given += some
        if given:
            log.info("priorities given back", clips=given)

    async def _walk(self) -> None:
        """Past every clip, from where the database went away the last time. A fifth of the time at most: there is no
        hurry, and other daemons walk as well."""
        while True:
            began = time.monotonic()
            found, self._walked = await self._store.mend_clips(self._settings.supabase.bucket, self._walked)
            if found:
                log.info("the queues were put right", clips=found)
                self.ring(SweepDue())
            if self._walked is None:
                return
            await asyncio.sleep(4 * (time.monotonic() - began))

    async def measure(self) -> None:
        """Compare corrections with the drafts that people had before them."""
        if not self.dispatcher.failures:
            await self.loop.ledger.edits.turn()

    async def cards(self) -> None:
        """Have the editor's cards follow. They are no reason to stop, whatever is wrong with them."""
        if not self.dispatcher.failures:
            with suppress(AmbaraError):
                await self._store.follow_redraft()

    async def _canary(self) -> int:
        total = self._executor.total
        state: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": self._drafter.version,
            **self._drafter.describe(),
            "drafted": total.written,
            "dropped": total.dropped,
            "failed": total.failed,
            "blocked": self._blocked,
            "feed": self.feed.state.value if self.feed else "off",
            "feed_reason": self.feed.reason if self.feed else None,
            "loop_lag_s": round(self._pulse.worst_s, 3),
            "tasks": self._pulse.tasks,
        }
        return await self._store.beat(state)
