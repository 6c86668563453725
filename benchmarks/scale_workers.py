"""Several workers on one database, and a burst of inserts: the live parts of `scale.py`."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import Any

import httpx
import numpy as np
import psutil
import structlog
import uvicorn
from scale_rows import Db
from starlette.applications import Starlette

from daemon.asr.transcriber import SAMPLE_RATE, Draft, Waveform
from daemon.clips import ClipStore
from daemon.feed import Feed, FeedSettings, FeedState
from daemon.local.realtime import BridgeSettings, RealtimeBridge, uvicorn_options
from daemon.local.sockets import free_port
from daemon.local.stack import LocalStack
from daemon.pipeline import Pipeline
from daemon.ports import Request, Tally
from daemon.supabase_client import connect, http_client
from handlers.events import Event

GIVE_UP_S = 120.0
QUIET_S = 4.0
"""A burst is over when nothing was heard for so long."""
SILENCE = np.zeros(SAMPLE_RATE, dtype=np.float32)


@dataclass
class Engine:
    """Of fixed cost, so that the queue alone is measured: a batch takes its time, and nobody's processor."""

    batch_s: float

    async def transcribe(self, batch: Sequence[Waveform]) -> list[Draft]:
        """Draft each waveform."""
        await asyncio.sleep(self.batch_s)
        return [Draft("what was heard", confidence=-0.2)] * len(batch)

    async def probe(self) -> None:
        """It never breaks."""


@dataclass(frozen=True, slots=True)
class Shift:
    """What some workers did together."""

    workers: int
    clips: int
    seconds: float
    statements: int
    shares: tuple[int, ...]
    """Clips by worker."""
    wrong: tuple[str, ...]
    """What may not be: empty."""


def shift(stack: LocalStack, db: Db, version: int, workers: int, clips: int, batch_s: float) -> Shift:
    """Let so many workers, each a process, draft so many new clips, through the Data API, until none is left.

    `version` is live.
    """
    run = arrive(db, clips)
    spawn = get_context("spawn")
    ready = spawn.Barrier(workers + 1)
    done: Queue[tuple[str, Tally, int]] = spawn.Queue()
    processes = [
        spawn.Process(
            target=work,
            args=(stack.url, stack.service_role_key, f"worker-{workers}-{number}", version, batch_s, ready, done),
        )
        for number in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        ready.wait(GIVE_UP_S)
        began = time.monotonic()
        found = sorted((done.get(timeout=GIVE_UP_S) for _ in processes), key=lambda each: each[0])
        taken = time.monotonic() - began
    finally:
        for process in processes:
            process.kill()
            process.join()
    tallies = [tally for _, tally, _ in found]
    statements = sum(count for *_, count in found)
    return Shift(workers, clips, taken, statements, tuple(t.written for t in tallies), tuple(wrong(db, run, tallies)))


def work(url: str, key: str, name: str, version: int, batch_s: float, ready: Barrier, done: Queue[Any]) -> None:
    """One worker: a process of its own, as a daemon is. Puts its name, its tally and its statements."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))

    async def turn() -> tuple[Tally, int]:
        statements = 0

        async def count(_request: httpx.Request) -> None:
            nonlocal statements
            statements += 1

        async def read(_run_id: str, _file_name: str) -> Waveform:
            return SILENCE

        async with http_client() as http:
            http.event_hooks["request"] = [count]
            store = ClipStore(await connect(url, key, http), name)
            pipeline = Pipeline(store, read, Engine(batch_s))
            await asyncio.to_thread(ready.wait, GIVE_UP_S)
            return await pipeline.turn(Request(version)), statements

    done.put((name, *asyncio.run(turn())))


def arrive(db: Db, clips: int) -> str:
    """A run with so many new clips, as the scripts insert them: 500 in a statement. Returns its id."""
    run = str(uuid.uuid4())
    db.execute("insert into runs (id, label) values (%s, 'new')", [run])
    for start in range(0, clips, 500):
        db.execute(
            "insert into clips (run_id, file_name, draft_transcription, duration_sec) "
            "select %s, 'clips/' || n || '.wav', 'stock draft', 9 from generate_series(%s::int, %s::int) n",
            [run, start, min(start + 500, clips) - 1],
        )
    return run


def wrong(db: Db, run: str, tallies: Sequence[Tally]) -> list[str]:
    """Clips that were missed or drafted twice, claims that were in vain."""
    found = []
    row = db.execute(
        "select count(*) filter (where n = 0), count(*) filter (where n > 1) from ("
        "select count(d.id) as n from clips c left join drafts d on d.clip_id = c.id where c.run_id = %s group by c.id"
        ") as each_one",
        [run],
    ).fetchone()
    assert row is not None
    for count, what in zip(row, ("never drafted", "drafted twice"), strict=True):
        if count:
            found.append(f"{count} clips {what}")
    if vain := sum(tally.dropped + tally.failed for tally in tallies):
        found.append(f"{vain} claims in vain")
    return found


@dataclass(frozen=True, slots=True)
class Burst:
    """Resident memory in MB of the process that listens and of the server, and what was heard."""

    before: float
    most: float
    after: float
    server_before: float
    server_after: float
    heard: int
    rings: int
    connections: int
    """1 if none was lost."""


def serve(db_url: str, jwt_secret: str, port: int, events_per_s: float) -> None:
    """The embedded Realtime in a process of its own, with a limit of one's choice. The real server's is 100."""
    realtime = RealtimeBridge(BridgeSettings(db_url, jwt_secret, max_events_per_second=events_per_s))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await realtime.start()
        yield
        await realtime.close()

    app = Starlette(routes=realtime.routes(), lifespan=lifespan)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", **uvicorn_options())


async def burst(stack: LocalStack, db: Db, inserts: int, events_per_s: float) -> Burst:
    """Insert so many clips while the real feed listens. A tenth goes before, for whatever grows only once."""
    port = free_port()
    server = get_context("spawn").Process(target=serve, args=(stack.db_url, stack.jwt_secret, port, events_per_s))
    server.start()
    try:
        await _until(lambda: listening(port))
        return await _burst(stack, db, inserts, f"http://127.0.0.1:{port}", psutil.Process(server.pid))
    finally:
        server.kill()
        server.join()


async def _burst(stack: LocalStack, db: Db, inserts: int, url: str, server: psutil.Process) -> Burst:
    me = psutil.Process()
    most = heard = rings = 0.0
    last = time.monotonic()

    def ring(_event: Event) -> None:
        nonlocal rings
        rings += 1

    async with http_client() as http, asyncio.TaskGroup() as tasks:
        store = ClipStore(await connect(stack.url, stack.service_role_key, http), "listener")
        settings = FeedSettings(url, stack.service_role_key, "listener", canary_s=GIVE_UP_S)
        feed = Feed(settings, ring, lambda: store.beat({}))
        press = feed._bell.press

        def pressed(event: Event) -> None:
            nonlocal heard, last
            heard, last = heard + 1, time.monotonic()
            press(event)

        feed._bell.press = pressed  # type: ignore[method-assign]
        running = tasks.create_task(feed.run())
        await _until(lambda: feed.state is FeedState.LIVE)
        await asyncio.to_thread(arrive, db, inserts // 10)
        await _until(lambda: time.monotonic() - last > QUIET_S)
        before, server_before = _mb(me), _mb(server)
        heard, rings, last = 0, 0, time.monotonic()  # few inserts are done before the first is heard
        inserting = tasks.create_task(asyncio.to_thread(arrive, db, inserts))
        while not inserting.done() or time.monotonic() - last < QUIET_S:
            most = max(most, _mb(me))
            await asyncio.sleep(0.05)
        running.cancel()
    return Burst(before, most, _mb(me), server_before, _mb(server), int(heard), int(rings), feed.generation)


def listening(port: int) -> bool:
    """Whether somebody does."""
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


def _mb(process: psutil.Process) -> float:
    return process.memory_info().rss / 1e6


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(GIVE_UP_S):
        while not condition():  # noqa: ASYNC110 - the state of a feed is a plain attribute
            await asyncio.sleep(0.05)
