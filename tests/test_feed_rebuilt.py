"""A server that rebuilds a subscription says "Subscribed" again: what happened meanwhile was told to nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import uvicorn
from starlette.applications import Starlette

from daemon.feed import Feed, FeedSettings
from daemon.local.realtime import BridgeSettings, RealtimeBridge, uvicorn_options
from daemon.local.stack import LocalStack
from handlers.events import Event, SweepDue

GUARD_S = 30.0


@asynccontextmanager
async def bridge(stack: LocalStack) -> AsyncIterator[str]:
    """A Realtime server of its own that looks at the publication all the time. Yields its URL."""
    realtime = RealtimeBridge(
        BridgeSettings(db_url=stack.db_url, jwt_secret=stack.jwt_secret, publication_check_s=0.05)
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await realtime.start()
        yield
        await realtime.close()

    app = Starlette(routes=realtime.routes(), lifespan=lifespan)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", **uvicorn_options()))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve())
        async with asyncio.timeout(GUARD_S):
            while not server.started:  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True


async def test_every_further_subscribed_rings_for_a_sweep(
    local_stack: LocalStack, db: psycopg.Connection[tuple[object, ...]]
) -> None:
    rung: asyncio.Queue[Event] = asyncio.Queue()

    async def beat() -> int:
        row = db.execute("select ambara_beat('rebuilt', '{}')").fetchone()
        assert row is not None
        return int(str(row[0]))

    async with bridge(local_stack) as url, asyncio.TaskGroup() as tasks:
        settings = FeedSettings(url=url, key=local_stack.service_role_key, worker="rebuilt", canary_s=2 * GUARD_S)
        feed = Feed(settings, rung.put_nowait, beat)
        running = tasks.create_task(feed.run())
        async with asyncio.timeout(GUARD_S):
            while feed.state.value != "live":  # noqa: ASYNC110 - a plain attribute
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)  # longer than rings of a kind are held together
            while not rung.empty():
                rung.get_nowait()
            db.execute("alter publication supabase_realtime add table runs")
            try:
                assert await rung.get() == SweepDue()
            finally:
                db.execute("alter publication supabase_realtime drop table runs")
        assert feed.generation == 1
        running.cancel()
