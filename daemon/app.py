"""The composition root of `ambara run`: build, wire, run, shut down."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import socket
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any

import structlog
from structlog.contextvars import bound_contextvars

from daemon import certificates, logs
from daemon.asr.device import nvidia_card
from daemon.backoff import patiently
from daemon.clips import ClipStore
from daemon.clock import Clock
from daemon.config import Settings
from daemon.database import Database
from daemon.drafter import Drafter
from daemon.errors import AmbaraError, ConfigurationError, PermanentError, TemporaryError, first_error
from daemon.learning.ledger import Ledger
from daemon.learning.loop import Loop
from daemon.notify import Notifier
from daemon.parts import audio_reader, model_maker, run_directories
from daemon.pulse import Pulse
from daemon.shown import Shown
from daemon.supabase_client import client_for, http_client
from daemon.wiring import Parts
from handlers.events import SweepDue

log = structlog.get_logger(__name__)

BEAT_S = 15.0
CARDS_S = 10.0
KEEPER_S = 1800.0
"""Seconds between two looks for what may be removed, and for what the queue has missed."""
MEASURED_S = 30.0
"""Seconds between two looks for corrections whose edits are not counted yet."""
CHECKPOINT_S = 90.0
"""Seconds that a trainer may take to write its checkpoint when the daemon stops."""
GOODBYE_S = 5.0
"""Seconds that a shutdown may take to give back claims."""


def new_worker() -> str:
    """A name for this process that no other one has, on any host, after any restart."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:100]  # it becomes part of a Realtime filter
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"


async def run(settings: Settings, *, wait: bool, notifier: Notifier, reread: Callable[[], Settings]) -> None:
    """Run until SIGTERM or SIGINT. SIGHUP takes up the thresholds of the settings that `reread` returns.

    `wait`: keep trying when Supabase cannot be reached at the start. A service manager wants that (the network may
    come later); a person at a terminal wants to hear that the URL is wrong.

    Raises `ConfigurationError` when a person has to change something first.
    """
    stop, reload = asyncio.Event(), asyncio.Event()
    _on_signals(stop, reload)
    drafter = Drafter()
    async with AsyncExitStack() as stack:
        stack.callback(drafter.close)
        worker = new_worker()
        stack.enter_context(bound_contextvars(worker=worker))  # before all that logs: the pulse does, on a slow machine
        pulse = stack.enter_context(Pulse(notifier, drafter.overdue_s))  # before all that takes time, and after it
        http = await stack.enter_async_context(http_client())
        stack.callback(logs.settle, at_the_end=True)
        client = await client_for(settings.supabase, http)
        store = ClipStore(client, worker, useful_first=settings.drafting.useful_first)
        database = Database(client)
        ledger = Ledger(database, worker, settings.supabase.bucket)

        at_work: Parts | None = None

        async def reloads(parts: Parts) -> None:
            nonlocal at_work
            at_work = parts
            while await reload.wait():
                reload.clear()
                await _reload(parts, pulse, reread)

        serving = _serve(settings, store, database, ledger, drafter, stack, pulse, reloads, wait=wait)
        await _until(stop, serving, lambda: _goodbye(pulse, training=at_work is not None and at_work.training))
        with suppress(AmbaraError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await store.release()
                await store.leave()
    log.info("stopped", worker=worker)


async def _prepare(
    settings: Settings, store: ClipStore, loop: Loop, drafter: Drafter, pulse: Pulse, *, wait: bool
) -> None:
    """Reach the database, load the live model, make it known."""
    pulse.starting("reaching Supabase")
    try:
        await store.check(settings.supabase.bucket)
    except TemporaryError as error:
        if not wait:
            url = settings.supabase.url
            away = f"There is no Supabase at {url}: {error} Check SUPABASE_URL and the network."
            raise ConfigurationError(str(error) if error.reason in certificates.REASONS else away) from None
        await patiently(lambda: store.check(settings.supabase.bucket), "Supabase")
    live = await patiently(loop.ledger.live, "Supabase")
    pulse.starting("loading the model")
    if live and live.kind != "base":

        async def load_live() -> None:
            await drafter.load(await loop.sources.maker(live))

        try:
            log.info("loading the model", version=live.id, name=live.name)
            await (patiently(load_live, "the model") if wait else load_live())
            drafter.version = live.id
            log.info("model ready", version=live.id, live=live.id, **drafter.model.describe())
        except PermanentError as error:
            log.warning("the live version cannot be served here", version=live.id, why=str(error))
        else:
            return
    log.info("loading the model", base=settings.model.base, language=settings.model.language)
    make = model_maker(settings.model)
    model = await (patiently(lambda: drafter.load(make), "the model") if wait else drafter.load(make))
    if settings.model.device == "auto" and str(model.describe().get("device")) == "cpu" and nvidia_card():
        log.warning("drafting on the CPU: PyTorch finds no device, and this machine has an NVIDIA card; ask the doctor")
    facts = model.describe()
    drafter.version, live_now = await patiently(
        lambda: store.register(model.name, model.fingerprint, facts, go_live=True), "Supabase"
    )
    log.info("model ready", version=drafter.version, live=live_now.id if live_now else None, **facts)


async def _serve(
    settings: Settings,
    store: ClipStore,
    database: Database,
    ledger: Ledger,
    drafter: Drafter,
    stack: AsyncExitStack,
    pulse: Pulse,
    reloads: Callable[[Parts], Coroutine[Any, Any, None]],
    *,
    wait: bool,
) -> None:
    """Prepare, then serve for ever. An unforeseen error in any part ends all of it: systemd starts a whole daemon."""
    loop = Loop(settings, ledger, lambda: drafter.version)
    async with asyncio.TaskGroup() as tasks:
        shown = Shown(settings, store.worker, pulse)
        if settings.status.enabled:
            tasks.create_task(shown.serve(database, loop, tasks), name="page")
        await _prepare(settings, store, loop, drafter, pulse, wait=wait)
        local = await patiently(lambda: run_directories(store, settings.audio.run_dirs), "Supabase")
        reader = await stack.enter_async_context(audio_reader(settings.supabase, settings.audio, local))
        clock = stack.enter_context(Clock())
        parts = shown.parts = Parts(settings, store, drafter, pulse, loop, reader.read, tasks, beside=local)
        pulse.starting("looking at the queue")
        await parts.loop.tidy()
        clock.every(settings.drafting.sweep_seconds, 0.2, lambda: parts.ring(SweepDue()), "sweep")
        clock.every(BEAT_S, 0.1, parts.beat, "beat")
        clock.every(CARDS_S, 0.2, parts.cards, "cards")
        tasks.create_task(parts.cards(), name="cards")
        clock.every(KEEPER_S, 0.2, parts.loop.keeper.turn, "keeper")
        tasks.create_task(parts.loop.keeper.turn(), name="keeper")
        clock.every(MEASURED_S, 0.2, parts.measure, "edits")
        clock.every(KEEPER_S, 0.2, parts.mend, "queue")
        tasks.create_task(parts.mend(), name="queue")
        parts.ring(SweepDue())
        tasks.create_task(parts.dispatcher.run(), name="dispatcher")
        tasks.create_task(parts.dispatcher.learn(), name="learning")
        tasks.create_task(reloads(parts), name="reloads")
        if parts.feed:
            tasks.create_task(parts.feed.run(), name="feed")


async def _reload(parts: Parts, pulse: Pulse, reread: Callable[[], Settings]) -> None:
    """Take up what can be taken up without a start. What is wrong is said, and all stays as it was."""
    with pulse.reloading():
        try:
            settings = await asyncio.to_thread(reread)
        except AmbaraError as error:
            log.error("settings not taken up", error=str(error))  # noqa: TRY400 - the sentence says it all
            return
        at_once, at_a_start = parts.take_up(settings)
        log.info("settings taken up", changed=at_once, after_a_restart=at_a_start)


def _goodbye(pulse: Pulse, *, training: bool) -> None:
    """A trainer under way writes a checkpoint first: ask the service manager for the time."""
    pulse.stopping(CHECKPOINT_S if training else GOODBYE_S + BEAT_S)
    log.info("stopping")


def _on_signals(stop: asyncio.Event, reload: asyncio.Event) -> None:
    """SIGTERM and SIGINT ask for a clean end; a second one does not wait for it. SIGHUP asks for the settings."""

    def asked(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked, number)
    loop.add_signal_handler(signal.SIGHUP, reload.set)


async def _until(stop: asyncio.Event, work: Coroutine[Any, Any, None], stopping: Callable[[], None]) -> None:
    """Run `work` until it ends or `stop` is set; `stopping` is called before it is cancelled.

    The only error that comes out alone is an `AmbaraError`.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(work)
            asked = tasks.create_task(stop.wait())
            await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                stopping()
            running.cancel()
            asked.cancel()
    except* AmbaraError as group:
        raise first_error(group) from None
