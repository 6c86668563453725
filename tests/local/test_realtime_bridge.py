"""The bridge's promises and failings over time: outages, limits, clocks, slow clients, shutdown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import psycopg

from daemon.local.realtime import BridgeSettings
from tests.local.realtime_support import GUARD_S, Client, Database, Served, bind, eventually, serve, token

Connection = psycopg.Connection[tuple[Any, ...]]
MakeSettings = Callable[..., BridgeSettings]

_POLLERS = "select count(*) from pg_stat_activity where application_name = 'realtime_rls'"
_KILL_POLLER = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'realtime_rls'"


def insert(db: Connection, name: str) -> None:
    db.execute("insert into clips(file_name) values (%s)", [name])


async def next_file(client: Client) -> str:
    frame = await client.receive()
    assert frame["event"] == "postgres_changes", frame
    return str(frame["payload"]["data"]["record"]["file_name"])


async def slot(served: Served, *, active: bool) -> None:
    await eventually(lambda: served.bridge.counters()["slot_active"] is active)


async def test_rows_committed_while_the_slot_is_away_are_lost_without_a_word(
    realtime_settings: MakeSettings, realtime_db: Connection
) -> None:
    settings = realtime_settings(reconnect_min_s=0.5, reconnect_max_s=0.5)
    async with serve(settings) as served, served.client() as client:
        await client.joined(bind())
        realtime_db.execute(_KILL_POLLER)
        await slot(served, active=False)
        insert(realtime_db, "lost")
        await slot(served, active=True)
        insert(realtime_db, "heard")
        assert await next_file(client) == "heard"


async def test_nothing_is_lost_once_subscribed_and_a_transaction_arrives_whole(
    realtime_settings: MakeSettings, realtime_db: Connection
) -> None:
    async with serve(realtime_settings()) as served, served.client() as client:
        await client.joined(bind())
        realtime_db.execute("insert into clips(file_name) select n::text from generate_series(1, 1500) n")
        for n in range(30):
            insert(realtime_db, f"single {n}")
        expected = [str(n) for n in range(1, 1501)] + [f"single {n}" for n in range(30)]
        assert [await next_file(client) for _ in expected] == expected


async def test_a_short_database_outage_goes_unmentioned(
    realtime_server: Database, realtime_settings: MakeSettings, realtime_db: Connection
) -> None:
    """A channel joined meanwhile is told of trouble, and then that it is subscribed."""
    settings = realtime_settings(subscribe_retry_s=0.1)
    async with serve(settings) as served, served.client() as client:
        await client.joined(bind(), topic="early")
        await asyncio.to_thread(realtime_server.stop)
        try:
            await slot(served, active=False)
            await client.beats("a")
            await client.join(bind(), topic="late", ref="2")
            assert (await client.receive())["payload"]["status"] == "ok"
            trouble = (await client.receive())["payload"]
            assert (trouble["status"], trouble["message"]) == ("error", '{:error, "Too many database timeouts"}')
        finally:
            await asyncio.to_thread(realtime_server.start)
        while (frame := await client.receive())["payload"]["status"] == "error":
            continue
        assert (frame["topic"], frame["payload"]["message"]) == ("realtime:late", "Subscribed to PostgreSQL")
        await slot(served, active=True)
        with realtime_server.connect() as db:
            insert(db, "heard")
        heard = {(await client.receive())["topic"] for _ in range(2)}
        assert heard == {"realtime:early", "realtime:late"}


async def test_a_long_database_outage_leaves_joined_channels_deaf_for_ever(
    realtime_server: Database, realtime_settings: MakeSettings, realtime_db: Connection
) -> None:
    async with serve(realtime_settings(give_up_after_s=0.2)) as served, served.client() as client:
        await client.joined(bind(), topic="old")
        await asyncio.to_thread(realtime_server.stop)
        try:
            await eventually(lambda: served.bridge.counters()["gave_up"] == 1)
        finally:
            await asyncio.to_thread(realtime_server.start)
        with realtime_server.connect() as db:
            insert(db, "unheard")
            await client.beats("a")
            await client.joined(bind(), topic="new", ref="2")
            insert(db, "heard")
        frame = await client.receive()
        assert (frame["topic"], frame["payload"]["data"]["record"]["file_name"]) == ("realtime:new", "heard")
        await client.beats("b")


async def test_over_the_rate_limit_everything_is_dropped_until_the_mean_falls(
    realtime_settings: MakeSettings, realtime_db: Connection
) -> None:
    settings = realtime_settings(max_events_per_second=50, rate_bucket_s=0.2, rate_buckets=4)
    async with serve(settings) as served, served.client() as client:
        await client.joined(bind(), bind("INSERT"))
        counters = served.bridge.counters
        realtime_db.execute("insert into clips(file_name) select 'burst' from generate_series(1, 40)")
        assert [await next_file(client) for _ in range(40)] == ["burst"] * 40
        async with asyncio.timeout(GUARD_S):
            while not counters()["dropped"]:
                insert(realtime_db, "single")
                await asyncio.sleep(0.02)
            before = counters()["delivered"]
            while counters()["delivered"] == before:
                insert(realtime_db, "at last")
                await asyncio.sleep(0.02)
        files = [await next_file(client) for _ in range(before - 40 + 1)]
        assert files == ["single"] * (before - 40) + ["at last"]


async def test_a_policy_that_raises_loses_the_batch_for_everyone(
    realtime_settings: MakeSettings, realtime_db: Connection
) -> None:
    realtime_db.execute(
        "create or replace function poison(name text) returns boolean language plpgsql as "
        "$$ begin if name = 'poison' then raise exception 'poisoned'; end if; return true; end $$"
    )
    realtime_db.execute("alter table clips enable row level security")
    realtime_db.execute("create policy p on clips for select to authenticated using (poison(file_name))")
    async with (
        serve(realtime_settings()) as served,
        served.client() as service,
        served.client(token("authenticated")) as user,
    ):
        await service.joined(bind())
        await user.joined(bind())
        insert(realtime_db, "before")
        assert [await next_file(client) for client in (service, user)] == ["before"] * 2
        realtime_db.execute("insert into clips(file_name) values ('same batch'), ('poison')")
        await eventually(lambda: served.bridge.counters()["slots_created"] == 2)
        assert served.bridge.counters()["dropped"] == 2
        insert(realtime_db, "later")
        assert [await next_file(client) for client in (service, user)] == ["later"] * 2


async def test_the_slot_outlives_the_last_subscription_for_a_while(
    realtime_settings: MakeSettings, realtime_db: Connection
) -> None:
    async with serve(realtime_settings(keep_alive_s=0.3)) as served, served.client() as client:
        await client.joined(bind())
        for ref in ("2", "3"):
            await client.push("phx_leave", {}, topic="realtime:clips", ref=ref, join_ref=None)
            assert [(await client.receive())["event"] for _ in range(2)] == ["phx_reply", "phx_close"]
            if ref == "2":
                assert served.bridge.counters()["slot_active"] is True
                await client.joined(bind(), ref="again")
                assert served.bridge.counters()["slots_created"] == 1
        await slot(served, active=False)
        insert(realtime_db, "while nobody is subscribed")
        await client.joined(bind(), ref="4")
        assert served.bridge.counters()["slots_created"] == 2
        insert(realtime_db, "heard")
        assert await next_file(client) == "heard"


async def test_a_change_of_the_publication_subscribes_everyone_anew(
    realtime_settings: MakeSettings, realtime_db: Connection
) -> None:
    async with serve(realtime_settings(publication_check_s=0.1)) as served, served.client() as client:
        await client.joined({"event": "*", "schema": "public"})
        realtime_db.execute("alter publication supabase_realtime add table notpub")
        assert (await client.receive())["payload"]["message"] == "Subscribed to PostgreSQL"
        realtime_db.execute("insert into notpub values (1, 'x')")
        assert (await client.receive())["payload"]["data"]["table"] == "notpub"
        realtime_db.execute("alter publication supabase_realtime drop table notpub")
        assert (await client.receive())["payload"]["message"] == "Subscribed to PostgreSQL"
        realtime_db.execute("insert into notpub values (2, 'x')")
        await client.beats("h")


async def test_an_idle_socket_is_closed_and_pings_count_as_life(
    realtime_settings: MakeSettings, realtime_db: Connection
) -> None:
    async with serve(realtime_settings(idle_timeout_s=0.5)) as served, served.client() as client:
        await client.joined(bind())
        wire = next(iter(served.bridge._sessions)).wire
        before = wire.last_received
        await (await client.socket.ping())
        last = wire.last_received
        assert last > before
        assert await client.closed() == (1000, True)
        assert time.monotonic() - last >= 0.5


async def test_a_socket_without_a_channel_is_cut(realtime_settings: MakeSettings, realtime_db: Connection) -> None:
    async with serve(realtime_settings(no_channel_timeout_s=0.3)) as served, served.client() as client:
        await client.beats("h")
        assert await client.closed() == (None, False)


async def test_a_client_that_does_not_read_is_cut_and_others_hear_everything(
    realtime_settings: MakeSettings, realtime_db: Connection
) -> None:
    async with (
        serve(realtime_settings(max_queue_bytes=4_000_000)) as served,
        served.client() as slow,
        served.client() as quick,
    ):
        await slow.joined(bind())
        await quick.joined(bind())
        slow.socket.transport.pause_reading()
        rounds = 0
        while served.bridge.counters()["sockets"] == 2:
            realtime_db.execute("insert into clips(file_name) select repeat('x', 100000) from generate_series(1, 20)")
            assert [len(await next_file(quick)) for _ in range(20)] == [100_000] * 20
            rounds += 1
            assert rounds < 100
        await quick.beats("h")


async def test_shutdown_closes_sockets_with_1012_and_leaves_no_slot(
    realtime_settings: MakeSettings, realtime_db: Connection
) -> None:
    async with serve(realtime_settings()) as served:
        client_context = served.client()
        client = await client_context.__aenter__()
        await client.joined(bind())
        assert realtime_db.execute(_POLLERS).fetchone() == (1,)
    assert await client.closed() == (1012, True)
    await client_context.__aexit__(None, None, None)
    await eventually(lambda: realtime_db.execute(_POLLERS).fetchone() == (0,))
    assert realtime_db.execute("select count(*) from pg_replication_slots").fetchone() == (0,)


async def test_a_failed_join_blocks_the_whole_socket(realtime_settings: MakeSettings, realtime_db: Connection) -> None:
    async with serve(realtime_settings(join_error_delay_s=0.3)) as served, served.client() as client:
        began = time.monotonic()
        await client.join(bind(), key="nonsense")
        await client.heartbeat("h")
        assert (await client.receive())["payload"]["status"] == "error"
        assert (await client.receive())["ref"] == "h"
        assert time.monotonic() - began >= 0.29
