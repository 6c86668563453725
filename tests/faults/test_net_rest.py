"""REST, Storage and the database are away, slow, or lose their answers."""

from __future__ import annotations

import asyncio
import time

import psycopg
import pytest
from chaos_proxy import Fault as Net
from fault_record import Fault
from scene import PROMPT, SELDOM, Scene
from witness import drafted_more_than_once

HEALED_START_S = 90.0
"""A load of the model and the promised minute."""


def once(scene: Scene) -> None:
    """Record that no clip has two drafts of one version."""
    with psycopg.connect(scene.stack.db_url) as db:
        scene.fault.holds("no double effect", [n] if (n := drafted_more_than_once(db)) else [])


@pytest.mark.fault("F05", "pg-restart")
async def test_the_database_crashes(fault: Fault, scene: Scene) -> None:
    """Between two crashes people work without a pause, and clips arrive."""
    crashes = fault.size(full=10, short=1)
    fault.injected(f"{crashes} x PostgreSQL crashes and recovers; 3 people at work, 10 inserts a crash")
    fault.observe("a sweep in 5 s: what is committed before Realtime's reader is back nobody announces")
    with scene.daemon(drafting={**PROMPT, "sweep_seconds": 5}) as daemon:
        await scene.live(daemon)
        clips = scene.insert_at_once(60)
        async with scene.people(clips, 3, pause_s=fault.random.choice([0, 1])) as people:
            for _ in range(crashes):
                await asyncio.sleep(fault.random.uniform(0.5, 3))
                await asyncio.to_thread(scene.stack.restart_postgres, "immediate")
                # The embedded API server does not survive every crash of its database.
                await asyncio.to_thread(scene.stack.ensure)
                await asyncio.to_thread(scene.insert, 10)
                await scene.drafted()
                await scene.live(daemon)
        fault.observe(f"people: {people.acts} acts done, {people.refused} refused by the outages")
        await scene.drafted()
        await scene.live(daemon)
        scene.end(daemon)


@pytest.mark.fault("F06", "rest-down-1h")
async def test_rest_and_storage_refuse(fault: Fault, scene: Scene) -> None:
    away_s = fault.size(full=300, short=12)
    fault.injected(f"REST and Storage refused for {away_s} s, 10 inserts meanwhile")
    fault.observe("1 h scaled to 5 min: the pauses have reached their longest after a minute")
    with scene.daemon(drafting={}) as daemon:
        await scene.live(daemon)
        scene.proxy.put(Net.REFUSE, "rest", "storage")
        began = time.monotonic()
        await asyncio.to_thread(scene.insert, 10)
        await asyncio.sleep(away_s)
        if fault.full:
            patient = began + 60
            asked = scene.proxy.count("rest", patient)
            per_10_s = 10 * asked / (time.monotonic() - patient)
            fault.observe(f"{per_10_s:.1f} requests in 10 s")
            fault.holds("no hammering", [per_10_s] if per_10_s > 1 else [])
        scene.proxy.put(Net.NONE, "rest", "storage")
        await scene.drafted(35, name="I1 within 35 s")
        await scene.live(daemon)
        scene.end(daemon)


@pytest.mark.fault("F11", "rest-lost-reply")
async def test_answers_are_lost(fault: Fault, scene: Scene) -> None:
    """Each call is carried out, and the daemon cannot know it."""
    lost = fault.size(full=200, short=8)
    fault.injected(f"{lost} answers of claim, submit, renew, release, fail, snapshot and beat are lost, a fifth of all")
    with scene.daemon(drafting={**PROMPT, "claim_clips": 1, "batch_clips": 1, "batches_per_turn": 1}) as daemon:
        await scene.live(daemon)
        scene.proxy.lose_answers(lost, 1 / 5, fault.random)
        while scene.proxy.still_to_lose() and len(scene.history.clips()) < 5000:
            await asyncio.to_thread(scene.insert, 8)
            await scene.until(lambda: not scene.undrafted(), 120)
        fault.holds("they were lost", [scene.proxy.still_to_lose()] if scene.proxy.still_to_lose() else [])
        await scene.drafted()
        once(scene)
        scene.end(daemon)


@pytest.mark.fault("F38", "slow and cut answers")
async def test_answers_are_slow_or_cut(fault: Fault, scene: Scene) -> None:
    rounds = fault.size(full=20, short=3)
    fault.injected(f"{rounds} x every answer 0.1-2 s late, or cut after 1-4,000 bytes, or half closed, for 3 s")
    with scene.daemon() as daemon:
        await scene.live(daemon)
        for number in range(rounds):
            await asyncio.to_thread(scene.insert, 5)
            match number % 3:
                case 0:
                    scene.proxy.slow(fault.random.uniform(0.1, 2))
                case 1:
                    scene.proxy.cut_answers(fault.random.randrange(1, 4000))
                case _:
                    scene.proxy.half_close()
            await asyncio.sleep(3)
            scene.proxy.slow(0)
            scene.proxy.cut_answers(None)
        await scene.drafted()
        await scene.live(daemon)
        once(scene)
        scene.end(daemon)


@pytest.mark.fault("F39", "storage-down")
async def test_storage_alone_is_away(fault: Fault, scene: Scene) -> None:
    """Clips of the bucket wait, those of a directory do not."""
    away_s, clips = fault.size(full=60, short=8), fault.size(full=30, short=6)
    fault.injected(f"Storage refused, then silent, then cut, {away_s} s together; {clips} clips in the bucket")
    with scene.daemon() as daemon:
        await scene.live(daemon)
        scene.proxy.put(Net.REFUSE, "storage")
        in_bucket = await scene.upload(clips)
        await asyncio.sleep(away_s / 3)
        scene.proxy.put(Net.NONE, "storage")
        scene.proxy.cut_answers(500, "storage")
        await asyncio.sleep(away_s / 3)
        scene.without_audio.update(in_bucket)
        await asyncio.to_thread(scene.insert, 10)
        await scene.drafted(name="I1 others during the fault")
        scene.without_audio.clear()
        scene.proxy.cut_answers(None, "storage")
        await scene.drafted()
        scene.end(daemon)


@pytest.mark.fault("F40", "gateway-killed")
async def test_the_whole_address_is_away(fault: Fault, scene: Scene) -> None:
    times = fault.size(full=5, short=1)
    fault.injected(f"{times} x everything behind the address is killed and comes back; people at work")
    with scene.daemon(drafting=SELDOM) as daemon:
        await scene.live(daemon)
        clips = scene.insert_at_once(40)
        async with scene.people(clips, 3, pause_s=0.5) as people:
            for _ in range(times):
                await asyncio.sleep(fault.random.uniform(0, 2))
                gateway = scene.stack.gateway.process
                assert gateway is not None
                gateway.kill()
                await asyncio.to_thread(scene.insert, 5)
                await asyncio.sleep(fault.random.uniform(0, 5))
                await asyncio.to_thread(scene.stack.ensure)
                await scene.drafted()
        fault.observe(f"people: {people.acts} acts done, {people.refused} refused by the outages")
        await scene.live(daemon)
        scene.end(daemon)


@pytest.mark.fault("F41", "away-at-start")
async def test_supabase_is_away_when_the_daemon_starts(fault: Fault, scene: Scene) -> None:
    away_s = fault.size(full=60, short=5)
    fault.injected(f"no Supabase for the first {away_s} s of a daemon's life; 10 inserts meanwhile")
    scene.proxy.deafen()
    with scene.daemon(ready=False, env={"NOTIFY_SOCKET": str(scene.folder / "nobody")}) as daemon:
        await asyncio.to_thread(scene.insert, 10)
        await asyncio.sleep(away_s)
        scene.proxy.listen()
        await scene.drafted(HEALED_START_S)
        await scene.live(daemon)
        scene.end(daemon)
