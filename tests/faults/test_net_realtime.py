"""Realtime is away, silent, flapping or deaf: the clips are drafted all the same, and the feed comes back."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psycopg
import pytest
from chaos_proxy import Fault as Net
from daemon_process import DaemonProcess
from fault_record import Fault
from footprint import Footprint
from inside import Inside
from scene import FEED_S, HEALED_S, PROMPT, SELDOM, Scene
from witness import drafted_more_than_once

CALM: dict[str, Any] = {}
"""The daemon's defaults: a sweep in about 30 s, a canary each minute."""
FAILS = """
from daemon.feed import connection
event = connection.ClipsChanged
def fail():
    connection.ClipsChanged = event
    raise RuntimeError("a callback that fails")
connection.ClipsChanged = fail
"""
"""The next change that is heard of ends in an error."""
DEAF_S = 95.0
"""By then a feed that delivers nothing is found out, with the default canary."""


@pytest.mark.fault("F01", "rt-server-down-20s")
async def test_realtime_is_away_for_a_while(fault: Fault, scene: Scene) -> None:
    away_s, inserts = fault.size(full=20, short=3), fault.size(full=30, short=6)
    fault.injected(f"Realtime refused for {away_s} s, {inserts} inserts meanwhile; one sweep in ten minutes")
    await away(scene, away_s, inserts)


@pytest.mark.long
@pytest.mark.fault("F02", "rt-server-down-long")
async def test_realtime_is_away_for_longer_than_its_client_bears(fault: Fault, scene: Scene) -> None:
    """After five failures the client's own reconnection would have given up for ever."""
    fault.injected("Realtime refused for 140 s, 70 inserts meanwhile; one sweep in ten minutes")
    fault.observe("20 min scaled to 140 s: the client's own tries end after about 15 s")
    await away(scene, 140, 70)


async def away(scene: Scene, seconds: float, inserts: int) -> None:
    with scene.daemon(drafting=SELDOM) as daemon:
        await scene.live(daemon)
        scene.proxy.put(Net.REFUSE, "realtime")
        await arrive(scene, seconds, inserts)
        scene.proxy.put(Net.NONE, "realtime")
        await scene.drafted()
        await scene.live(daemon, since=1)
        scene.end(daemon)


@pytest.mark.fault("F03", "rt-blackhole")
async def test_realtime_swallows_everything(fault: Fault, scene: Scene) -> None:
    """No byte comes and nothing is closed; the sweep serves meanwhile."""
    hole_s = fault.size(full=180, short=12)
    realtime, drafting = (CALM, CALM) if fault.full else ({"canary_seconds": 5}, PROMPT)
    fault.injected(f"Realtime's connections swallow every byte for {hole_s} s, an insert each {hole_s / 12:.0f} s")
    with scene.daemon(drafting=drafting, realtime=realtime) as daemon:
        await scene.live(daemon)
        scene.proxy.put(Net.BLACK_HOLE, "realtime")
        found = await found_out(scene, daemon, hole_s, 12)
        scene.proxy.put(Net.NONE, "realtime")
        if found:
            await scene.live(daemon, since=1)
        await scene.drafted()
        scene.end(daemon)


async def found_out(scene: Scene, daemon: DaemonProcess, seconds: float, inserts: int) -> bool:
    """Let clips arrive for so long, and record when the feed is no longer taken for live, and that no clip waits."""
    fault, began = scene.fault, time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(arrive(scene, seconds, inserts))
        found = await scene.until(lambda: daemon.said("feed")[-1]["state"] != "live", min(seconds, DEAF_S))
        if found:
            fault.observe(f"found out after {time.monotonic() - began:.0f} s")
        # The short form ends before its canary's patience does.
        fault.holds("found out in time", [daemon.said("feed")[-1]] if fault.full and not found else [])
    await scene.drafted(name="I1 during the fault")
    waited_s = scene.longest_wait()
    fault.observe(f"longest wait {waited_s:.0f} s")
    fault.holds("0 pending > 60 s", [waited_s] if waited_s > HEALED_S else [])
    return found


async def arrive(scene: Scene, seconds: float, inserts: int) -> None:
    for _ in range(inserts):
        await asyncio.to_thread(scene.insert, 1)
        await asyncio.sleep(seconds / inserts)


@pytest.mark.fault("F04", "rt-flap")
async def test_realtime_comes_and_goes(fault: Fault, scene: Scene) -> None:
    resets, inserts = fault.size(full=100, short=6), fault.size(full=100, short=12)
    fault.injected(f"{resets} resets of Realtime's connections, {inserts} inserts meanwhile")
    fault.observe(f"5 min scaled to about {resets} s")
    with scene.daemon(drafting=SELDOM) as daemon:
        await scene.live(daemon)
        scene.insert(40)  # full batches, as come after an interruption: their memory is kept
        await scene.drafted()
        before = Footprint.of(daemon.child.pid)
        most = met = 0
        for number in range(resets):
            for _ in range(inserts // resets):
                await asyncio.to_thread(scene.insert, 1)
            await asyncio.sleep(fault.random.uniform(0, 2))
            most = max(most, scene.proxy.connections("realtime"))
            cut = scene.proxy.half_close if number % 4 == 3 else scene.proxy.reset
            met += cut("realtime") > 0
        await scene.drafted()
        await scene.live(daemon, since=1)
        fault.observe(f"{met} of them met a connection")
        fault.holds("there was one to reset", [met] if met < resets / 10 else [])
        fault.holds("one connection", [most] if most > 1 else [])
        now = Footprint.of(daemon.child.pid)
        fault.observe(f"memory {before.rss_mb:.0f} -> {now.rss_mb:.0f} MB")
        fault.holds("I7 no larger", before.grown(now, rss_mb=20))
        scene.end(daemon)


@pytest.mark.fault("F07", "rt-terminate-backend")
async def test_the_bridge_loses_its_database_connections(fault: Fault, scene: Scene) -> None:
    """The replication slot is gone with them, and with it what happened meanwhile."""
    times = fault.size(full=20, short=2)
    fault.injected(f"{times} x pg_terminate_backend of Realtime's connections, 5 inserts at once after each")
    fault.observe("a sweep in 5 s: what a poller loses nobody announces")
    query = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like 'realtime%%'"
    with scene.daemon(drafting={**PROMPT, "sweep_seconds": 5}) as daemon:
        await scene.live(daemon)
        ended = 0
        for _ in range(times):
            with psycopg.connect(scene.stack.db_url, autocommit=True) as db:
                row = db.execute(query).fetchone()
            ended += row[0] if row else 0
            scene.insert(5)
            await asyncio.sleep(fault.random.uniform(0.2, 3))
        fault.holds("they were there", [] if ended >= times / 2 else [ended])
        await scene.drafted()
        await scene.live(daemon)
        scene.end(daemon)


@pytest.mark.fault("F08", "rt-connected-but-deaf")
async def test_connected_and_deaf(fault: Fault, scene: Scene) -> None:
    """The tables leave the publication: everything looks well, and nothing comes."""
    deaf_s = fault.size(full=180, short=15)
    realtime, drafting = (CALM, CALM) if fault.full else ({"canary_seconds": 5}, PROMPT)
    fault.injected(f"both tables are out of the publication for {deaf_s} s, an insert each {deaf_s / 10:.0f} s")
    change = "alter publication supabase_realtime {} table public.clips, public.ambara_daemons"
    with scene.daemon(drafting=drafting, realtime=realtime) as daemon:
        await scene.live(daemon)
        with psycopg.connect(scene.stack.db_url, autocommit=True) as db:
            db.execute(change.format("drop").encode())
            try:
                found = await found_out(scene, daemon, deaf_s, 10)
            finally:
                db.execute(change.format("add").encode())
        if found:
            await scene.live(daemon, FEED_S + 30, since=1)  # a refused subscription is asked for again after a while
        await scene.drafted()
        scene.end(daemon)


@pytest.mark.fault("F09", "rt-token-expiry")
async def test_tokens_expire(fault: Fault, scene: Scene) -> None:
    times = fault.size(full=10, short=2)
    fault.injected(f"{times} x the server takes every token for expired, an insert after each")
    with scene.daemon(drafting=SELDOM) as daemon:
        for number in range(times):
            await scene.live(daemon, since=number)
            scene.realtime("expire_tokens")
            scene.insert(1)
            await scene.drafted()
        await scene.live(daemon, since=times)
        scene.end(daemon)


@pytest.mark.fault("F10", "rt-burst")
async def test_a_burst_over_the_rate_limit(fault: Fault, scene: Scene) -> None:
    """The server passes over what is too much without a word, and nothing comes after it."""
    clips = fault.size(full=5000, short=400)
    fault.injected(f"{clips} inserts at once, of which Realtime announces none")
    drafting = {"batch_clips": 16, "claim_clips": 16, "batches_per_turn": 1, "sweep_seconds": 10}
    with scene.daemon(drafting=drafting) as daemon:
        await scene.live(daemon)
        scene.insert_at_once(100)
        await scene.drafted()
        before = Footprint.of(daemon.child.pid)
        await asyncio.sleep(3)  # what the server has still to say of the first ones would ring for the next
        scene.realtime("drop")
        scene.insert_at_once(clips)
        await scene.drafted(HEALED_S + clips * 0.1)
        scene.realtime("clear")
        now = Footprint.of(daemon.child.pid)
        fault.observe(f"memory {before.rss_mb:.0f} -> {now.rss_mb:.0f} MB")
        fault.holds("I7 50 MB at most", before.grown(now, share=0, rss_mb=50))
        with psycopg.connect(scene.stack.db_url) as db:
            fault.holds("each claimed once", [drafted_more_than_once(db)] if drafted_more_than_once(db) else [])
        scene.end(daemon)


@pytest.mark.fault("F42", "callback-fails")
async def test_a_callback_fails(fault: Fault, scene: Scene) -> None:
    """The client's listener ends of that without a word, while its heartbeat says that all is well."""
    times = fault.size(full=10, short=1)
    fault.injected(f"{times} x an error in what a change of a clip calls")
    inside = Inside(scene.folder / "inside")
    with scene.daemon(drafting=SELDOM, env=inside.env) as daemon:
        for number in range(times):
            await scene.live(daemon, since=number)
            inside.do(daemon, FAILS)
            scene.insert(1)
            await asyncio.sleep(1)  # it has rung, and failed; whatever comes now nobody hears
            scene.insert(4)
            await scene.drafted()
            await asyncio.sleep(1)  # what was drafted may have been seen by a turn that was at work anyway; it is over
            scene.insert(1)
            await scene.drafted()
        await scene.live(daemon, since=times)
        scene.end(daemon)


@pytest.mark.fault("F43", "rt-off")
async def test_nobody_listens(fault: Fault, scene: Scene) -> None:
    """The sweep alone sees to everything."""
    inserts = fault.size(full=50, short=5)
    fault.injected(f"Realtime is switched off; {inserts} inserts")
    with scene.daemon(realtime={"enabled": False}) as daemon:
        for _ in range(inserts):
            await asyncio.to_thread(scene.insert, 1)
            await asyncio.sleep(0.2)
        await scene.drafted()
        scene.end(daemon)
