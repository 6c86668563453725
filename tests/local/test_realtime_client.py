"""The unmodified Python client against the bridge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
from realtime import AsyncRealtimeClient, RealtimePostgresChangesListenEvent, RealtimeSubscribeStates

from daemon.local.realtime import BridgeSettings
from tests.local.realtime_support import GUARD_S, serve, token


async def test_the_official_client_joins_and_hears_of_inserts_and_updates(
    realtime_settings: Callable[..., BridgeSettings], realtime_db: psycopg.Connection[tuple[Any, ...]]
) -> None:
    heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    subscribed, flowing = asyncio.Event(), asyncio.Event()
    async with serve(realtime_settings()) as served:
        client = AsyncRealtimeClient(f"ws://127.0.0.1:{served.port}/realtime/v1", token())
        channel = client.channel("clips")
        for event in (RealtimePostgresChangesListenEvent.Insert, RealtimePostgresChangesListenEvent.Update):
            channel.on_postgres_changes(event, heard.put_nowait, table="clips", schema="public")
        channel.on_system(lambda _: flowing.set())
        await channel.subscribe(
            lambda state, _: subscribed.set() if state is RealtimeSubscribeStates.SUBSCRIBED else None
        )
        async with asyncio.timeout(GUARD_S):
            await subscribed.wait()
            await flowing.wait()
            realtime_db.execute("insert into clips(file_name) values ('a.wav')")
            insert = await heard.get()
            realtime_db.execute("update clips set status = 'corrected'")
            update = await heard.get()
        await client.close()
    assert (insert["data"]["type"], insert["data"]["record"]["file_name"]) == ("INSERT", "a.wav")
    assert (update["data"]["type"], update["data"]["record"]["status"]) == ("UPDATE", "corrected")
    assert heard.empty()
