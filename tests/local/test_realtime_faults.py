"""Each misbehaviour on command, by what a client sees of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import psycopg
import pytest
from realtime import AsyncRealtimeClient
from websockets.exceptions import InvalidStatus

from daemon.local.realtime import BridgeSettings
from tests.local.realtime_support import GUARD_S, Client, bind, eventually, serve, token

Connection = psycopg.Connection[tuple[Any, ...]]
MakeSettings = Callable[..., BridgeSettings]


def insert(db: Connection, name: str) -> None:
    db.execute("insert into clips(file_name) values (%s)", [name])


async def next_file(client: Client) -> str:
    frame = await client.receive()
    assert frame["event"] == "postgres_changes", frame
    return str(frame["payload"]["data"]["record"]["file_name"])


@pytest.mark.parametrize("code", [1000, 1001, 1012])
async def test_close(code: int, realtime_settings: MakeSettings, realtime_db: Connection) -> None:
    async with serve(realtime_settings()) as served, served.client() as client:
        await client.joined(bind())
        served.bridge.faults.inject("close", code=code)
        assert await client.closed() == (code, True)


async def test_cut_ends_tcp_without_a_close_frame(realtime_settings: MakeSettings, realtime_db: Connection) -> None:
    async with serve(realtime_settings()) as served, served.client() as client:
        await client.joined(bind())
        served.bridge.faults.inject("cut")
        assert await client.closed() == (None, False)
        await eventually(lambda: served.bridge.counters()["sockets"] == 0)


async def test_mute_lets_only_heartbeat_replies_out(realtime_settings: MakeSettings, realtime_db: Connection) -> None:
    async with serve(realtime_settings()) as served, served.client() as client:
        await client.joined(bind())
        served.bridge.faults.inject("mute")
        insert(realtime_db, "unheard")
        await eventually(lambda: served.bridge.counters()["delivered"] == 1)
        await client.join(bind(), topic="other", ref="2")
        await client.beats("a")
        served.bridge.faults.inject("clear")
        await client.beats("b")


async def test_freeze_stops_changes_heartbeats_and_pongs(
    realtime_settings: MakeSettings, realtime_db: Connection
) -> None:
    """Nothing is lost by it: what was asked and what happened meanwhile is answered afterwards."""
    async with serve(realtime_settings()) as served, served.client() as client:
        await client.joined(bind())
        served.bridge.faults.inject("freeze")
        transport = next(iter(served.bridge._sessions)).wire._protocol.transport
        await eventually(lambda: not transport.is_reading())
        pong = await client.socket.ping()
        await client.heartbeat("h")
        insert(realtime_db, "meanwhile")
        await eventually(lambda: served.bridge.counters()["delivered"] == 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.socket.recv()
        assert not pong.done()
        served.bridge.faults.inject("clear")
        assert await next_file(client) == "meanwhile"
        assert (await client.receive())["ref"] == "h"
        async with asyncio.timeout(GUARD_S):
            await pong


async def test_a_frozen_bridge_lets_handshakes_wait(realtime_settings: MakeSettings, realtime_db: Connection) -> None:
    async with serve(realtime_settings()) as served:
        began = time.monotonic()
        served.bridge.faults.inject("freeze", seconds=0.3)
        async with served.client() as client:
            assert time.monotonic() - began >= 0.3
            await client.beats("h")


async def test_drop_loses_rows_as_the_rate_limit_does(realtime_settings: MakeSettings, realtime_db: Connection) -> None:
    async with serve(realtime_settings()) as served, served.client() as client:
        await client.joined(bind())
        served.bridge.faults.inject("drop", count=2)
        for name in ("lost", "lost too", "heard"):
            insert(realtime_db, name)
        assert await next_file(client) == "heard"
        assert served.bridge.counters()["dropped"] == 2


async def test_hollow_says_subscribed_and_nothing_flows(
    realtime_settings: MakeSettings, realtime_db: Connection
) -> None:
    async with serve(realtime_settings()) as served, served.client() as client:
        served.bridge.faults.inject("hollow", count=1)
        await client.joined(bind(), topic="hollow")
        await client.joined(bind(), topic="sound", ref="2")
        insert(realtime_db, "a")
        assert (await client.receive())["topic"] == "realtime:sound"
        await client.beats("h")


async def test_deafen_is_silent_and_a_new_join_hears(realtime_settings: MakeSettings, realtime_db: Connection) -> None:
    async with serve(realtime_settings()) as served, served.client() as client:
        await client.joined(bind(), topic="old")
        served.bridge.faults.inject("deafen")
        await eventually(lambda: not served.bridge.counters()["slot_active"])
        insert(realtime_db, "unheard")
        await client.beats("a")
        await client.joined(bind(), topic="new", ref="2")
        insert(realtime_db, "heard")
        frame = await client.receive()
        assert (frame["topic"], frame["payload"]["data"]["record"]["file_name"]) == ("realtime:new", "heard")
        await client.beats("b")


async def test_deaf_after_outage(realtime_settings: MakeSettings, realtime_db: Connection) -> None:
    """The next loss of the poller's connection is final, though the database is back at once."""
    async with serve(realtime_settings()) as served, served.client() as client:
        await client.joined(bind())
        served.bridge.faults.inject("deaf_after_outage")
        realtime_db.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name='realtime_rls'"
        )
        await eventually(lambda: served.bridge.counters()["gave_up"] == 1)
        insert(realtime_db, "unheard")
        await client.beats("h")
        assert served.bridge.counters()["subscriptions"] == 0
        assert served.bridge.counters()["channels"] == 1


async def test_expire_tokens(realtime_settings: MakeSettings, realtime_db: Connection) -> None:
    async with serve(realtime_settings()) as served, served.client() as client:
        await client.joined(bind())
        served.bridge.faults.inject("expire_tokens")
        system, close = await client.receive(), await client.receive()
        assert (system["payload"]["extension"], system["payload"]["status"]) == ("system", "error")
        assert system["payload"]["message"] == "Token has expired 0 seconds ago"
        assert (close["event"], close["ref"]) == ("phx_close", "1")
        await client.beats("h")


async def test_a_stale_close_kills_the_official_clients_channel(
    realtime_settings: MakeSettings, realtime_db: Connection
) -> None:
    """The client drops its channel, while the server goes on sending to it."""
    async with serve(realtime_settings()) as served:
        official = AsyncRealtimeClient(f"ws://127.0.0.1:{served.port}/realtime/v1", token())
        flowing = asyncio.Event()
        channel = official.channel("clips").on_system(lambda _: flowing.set())
        await channel.on_postgres_changes("*", lambda _: None, table="clips").subscribe()
        async with asyncio.timeout(GUARD_S):
            await flowing.wait()
        served.bridge.faults.inject("stale_close")
        await eventually(lambda: not official.get_channels())
        insert(realtime_db, "a")
        await eventually(lambda: served.bridge.counters()["delivered"] == 1)
        await official.close()


async def test_delays(realtime_settings: MakeSettings, realtime_db: Connection) -> None:
    """Join reply, `system` and frames, each no earlier than told."""
    faults_in_turn = ("delay_join_replies", "delay_system", "delay_frames")
    async with serve(realtime_settings()) as served, served.client() as client:
        for ref, action in enumerate(faults_in_turn):
            served.bridge.faults.inject(action, count=1, delay_s=0.3)
            began = time.monotonic()
            await client.join(bind(), topic=action, ref=str(ref))
            reply = await client.receive()
            replied = time.monotonic()
            system = await client.receive()
            assert (reply["event"], system["event"]) == ("phx_reply", "system")
            assert (replied if action != "delay_system" else time.monotonic()) - began >= 0.29


async def test_a_late_join_reply_makes_a_rejoin_end_in_a_stale_close(
    realtime_settings: MakeSettings, realtime_db: Connection
) -> None:
    """What a client does that lost patience: it joins again, and the close of its first join comes last."""
    async with serve(realtime_settings()) as served, served.client() as client:
        served.bridge.faults.inject("lose_join_replies", count=1)
        await client.join(bind(), ref="1")
        assert (await client.receive())["event"] == "system"
        await client.join(bind(), ref="2")
        frames = [await client.receive() for _ in range(3)]
        assert [(frame["event"], frame["ref"]) for frame in frames] == [
            ("phx_reply", "2"),
            ("phx_close", "1"),
            ("system", None),
        ]


@pytest.mark.parametrize("status", [401, 500, 503])
async def test_refuse(status: int, realtime_settings: MakeSettings, realtime_db: Connection) -> None:
    async with serve(realtime_settings()) as served:
        served.bridge.faults.inject("refuse", count=1, status=status)
        with pytest.raises(InvalidStatus) as caught:
            async with served.client():
                pass
        assert caught.value.response.status_code == status
        async with served.client() as client:
            await client.beats("h")


async def test_the_route_is_for_the_service_role_and_says_what_is_wrong(
    realtime_settings: MakeSettings, realtime_db: Connection
) -> None:
    async with serve(realtime_settings()) as served, served.client() as client:
        await client.joined(bind())
        url = f"http://127.0.0.1:{served.port}/_local/realtime/faults"
        service = {"authorization": f"Bearer {token()}"}
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(url)).status_code == 401
            assert (await http.get(url, headers={"apikey": token("anon")})).status_code == 401
            counters = (await http.get(url, headers={"apikey": token()})).json()
            wrong: list[Any] = [
                {},
                [],
                {"action": "explode"},
                {"action": "mute", "seconds": -1},
                {"action": "mute", "seconds": "1"},
                {"action": "mute", "until": 1},
                {"action": "refuse", "status": 200},
            ]
            answers = [await http.post(url, headers=service, json=body) for body in wrong]
            mute = (await http.post(url, headers=service, json={"action": "mute", "seconds": 60})).json()
            await http.post(url, headers=service, json={"action": "close", "code": 1001})
        assert (counters["sockets"], counters["channels"], counters["subscriptions"]) == (1, 1, 1)
        assert counters["slot_active"] is True
        assert [answer.status_code for answer in answers] == [400] * len(wrong)
        assert 0 < mute["faults"]["mute"]["seconds"] <= 60
        assert await client.closed() == (1001, True)
