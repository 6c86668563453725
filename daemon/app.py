"""The composition root of `ambara run`: build, wire, run, shut down."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

import structlog

from daemon.backoff import backoff
from daemon.clips import ClipStore
from daemon.clock import Clock
from daemon.config import Settings
from daemon.dispatcher import Dispatcher
from daemon.drafter import Drafter
from daemon.errors import AmbaraError, ConfigurationError, TemporaryError, first_error
from daemon.executor import Executor
from daemon.feed import Feed, FeedSettings
from daemon.notify import Notifier
from daemon.parts import audio_reader, model_maker, pipeline_settings, run_directories
from daemon.pipeline import Pipeline
from daemon.supabase_client import connect, http_client
from handlers.drafting import why_not_draft
from handlers.events import SweepDue
from handlers.policy import DraftingPolicy, Policy
from handlers.snapshot import Snapshot

log = structlog.get_logger(__name__)
T = TypeVar("T")

BEAT_S = 15.0
GOODBYE_S = 5.0
"""Seconds that a shutdown may take to give back claims."""


def new_worker() -> str:
    """A name for this process that no other one has, on any host, after any restart."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:100]  # it becomes part of a Realtime filter
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"


async def run(settings: Settings, *, wait: bool, notifier: Notifier) -> None:
    """Run until SIGTERM or SIGINT.

    `wait`: keep trying when Supabase cannot be reached at the start. A service manager wants that (the network may
    come later); a person at a terminal wants to hear that the URL is wrong.

    Raises `ConfigurationError` when a person has to change something first.
    """
    stop = asyncio.Event()
    _on_signals(stop)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(http_client())
        key = settings.supabase.key.get_secret_value()
        worker = new_worker()
        store = ClipStore(await connect(settings.supabase.url, key, http), worker)
        drafter = Drafter()
        stack.callback(drafter.close)
        serving = _serve(settings, store, drafter, stack, notifier, wait=wait)
        await _until(stop, serving)
        notifier.stopping()
        log.info("stopping")
        with suppress(AmbaraError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await store.release()
                await store.leave()
    log.info("stopped")


async def _prepare(settings: Settings, store: ClipStore, drafter: Drafter, *, wait: bool) -> dict[str, Path]:
    """Reach the database, load the model, make it known. Returns the local directories of runs."""
    try:
        await store.check(settings.supabase.bucket)
    except TemporaryError as error:
        if not wait:
            raise ConfigurationError(
                f"There is no Supabase at {settings.supabase.url}: {error} Check SUPABASE_URL and the network."
            ) from None
        await _patiently(lambda: store.check(settings.supabase.bucket))
    log.info("loading the model", base=settings.model.base, language=settings.model.language)
    model = await drafter.load(model_maker(settings.model))
    facts = model.describe()
    version, live = await _patiently(lambda: store.register(model.name, model.fingerprint, facts, go_live=True))
    drafter.version = version
    log.info("model ready", version=version, live=live.id if live else None, **facts)
    return await _patiently(lambda: run_directories(store, settings.audio.run_dirs))


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until Supabase answers: it may come up after the daemon."""
    failures = 0
    while True:
        try:
            return await ask()
        except TemporaryError as error:
            failures += 1
            pause = backoff(failures)
            log.warning("waiting for Supabase", error=str(error), again_in_s=round(pause, 1))
            await asyncio.sleep(pause)


async def _serve(
    settings: Settings, store: ClipStore, drafter: Drafter, stack: AsyncExitStack, notifier: Notifier, *, wait: bool
) -> None:
    """Prepare, then serve for ever. An unforeseen error in any part ends all of it: systemd starts a whole daemon."""
    local = await _prepare(settings, store, drafter, wait=wait)
    reader = await stack.enter_async_context(audio_reader(settings.supabase, settings.audio, local))
    clock = stack.enter_context(Clock())
    async with asyncio.TaskGroup() as tasks:
        pipeline = Pipeline(store, reader.read, drafter, pipeline_settings(settings.drafting))
        parts = Parts(
            settings,
            store,
            drafter,
            notifier,
            Executor(tasks, pipeline, lambda event: parts.ring(event)),  # noqa: PLW0108 - `parts` comes later
        )
        clock.every(settings.drafting.sweep_seconds, 0.2, lambda: parts.ring(SweepDue()), "sweep")
        clock.every(BEAT_S, 0.1, parts.beat, "beat")
        parts.ring(SweepDue())
        tasks.create_task(parts.dispatcher.run(), name="dispatcher")
        if parts.feed:
            tasks.create_task(parts.feed.run(), name="feed")


class Parts:
    """The running parts, wired to each other."""

    def __init__(
        self, settings: Settings, store: ClipStore, drafter: Drafter, notifier: Notifier, executor: Executor
    ) -> None:
        self._store = store
        self._drafter = drafter
        self._notifier = notifier
        self._executor = executor
        self._ready = False
        self._blocked: str | None = None
        policy = Policy(drafting=DraftingPolicy(batches_per_turn=settings.drafting.batches_per_turn))
        self.dispatcher = Dispatcher(self._observe, executor.start, policy)
        self.ring = self.dispatcher.ring
        self.feed: Feed | None = None
        if settings.realtime.enabled:
            feed = FeedSettings(
                url=settings.supabase.url,
                key=settings.supabase.key.get_secret_value(),
                worker=store.worker,
                canary_s=settings.realtime.canary_seconds,
            )
            self.feed = Feed(feed, self.ring, self._canary)

    async def _observe(self) -> Snapshot:
        live, ready = await self._store.snapshot()
        snapshot = Snapshot(live=live, loaded=self._drafter.version, ready=ready, busy=self._executor.busy)
        blocked = why_not_draft(snapshot) if ready else None
        if blocked != self._blocked and self._executor.busy == frozenset():
            self._blocked = blocked
            if blocked:
                log.warning("not drafting", why=blocked)
        if not self._ready:
            self._ready = True
            self._notifier.ready(f"live v{live}, {ready} ready")
            log.info("ready", live=live, clips_ready=ready)
        return snapshot

    async def beat(self) -> None:
        """Tell the database what this daemon is doing, for `ambara status`."""
        with suppress(AmbaraError):
            await self._canary()

    async def _canary(self) -> int:
        total = self._executor.total
        state: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": self._drafter.version,
            **self._drafter.model.describe(),
            "drafted": total.written,
            "dropped": total.dropped,
            "failed": total.failed,
            "blocked": self._blocked,
            "feed": self.feed.state.value if self.feed else "off",
            "feed_reason": self.feed.reason if self.feed else None,
        }
        return await self._store.beat(state)


def _on_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT ask for a clean end; a second one does not wait for it."""

    def asked(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked, number)


async def _until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until it ends or `stop` is set. The only error that comes out alone is an `AmbaraError`."""
    try:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(work)
            stopping = tasks.create_task(stop.wait())
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            running.cancel()
            stopping.cancel()
    except* AmbaraError as group:
        raise first_error(group) from None
