"""The wire between Supabase's own servers and their database: stalled, cut, refused, slow. All of them stay up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import audit
import psycopg
import pytest
from chaos_proxy import DATABASE, ChaosProxy
from chaos_proxy import Fault as Net
from fault_record import Fault
from scene import Scene

from daemon.local.stack import LocalStack


@contextmanager
def wired(stack: LocalStack) -> Iterator[ChaosProxy]:
    """REST, Storage and Realtime reach their database through a proxy. Tests and their audit go straight."""
    with ChaosProxy(stack.db_url) as wire:
        through = stack.db_url.replace(f":{stack.postgres.port}/", f":{wire.port}/")
        stack.stop_gateway()
        stack.lite.stop()
        stack.lite.start(db_url=through, jwt_secret=stack.jwt_secret)
        stack.lite.wait(stack.service_role_key)
        stack.gateway.start(api_url=stack.lite.url, db_url=through, jwt_secret=stack.jwt_secret)
        stack.gateway.wait()
        try:
            yield wire
        finally:
            stack.stop_gateway()
            stack.reload_api()
            stack.start_gateway()


@pytest.mark.fault("F45", "database-wire")
async def test_the_database_is_out_of_its_servers_reach(fault: Fault, scene: Scene) -> None:
    """What was asked may have been carried out, may be carried out much later, or never."""
    stall_s, away_s = fault.size(full=40, short=5), fault.size(full=15, short=3)
    rounds = fault.size(full=3, short=1)
    fault.injected(
        f"{rounds} x all connections to the database stall for {stall_s} s, are refused for {away_s} s, are reset at "
        "six moments, and answer 0.3 s late; people at work, 5 inserts each"
    )
    with wired(scene.stack) as wire, scene.daemon() as daemon:
        await scene.live(daemon)
        fault.holds("they go through it", [] if wire.connections(DATABASE) else ["none"])
        clips = scene.insert_at_once(40)
        async with scene.people(clips, 3, pause_s=0.3) as people:
            for _ in range(rounds):
                for net, seconds in ((Net.STALL, stall_s), (Net.REFUSE, away_s)):
                    await asyncio.sleep(fault.random.uniform(0, 2))
                    wire.put(net, DATABASE)
                    await asyncio.to_thread(scene.insert, 5)
                    await asyncio.sleep(seconds)
                    wire.put(Net.NONE, DATABASE)
                    await scene.drafted()
                for _ in range(6):
                    wire.reset(DATABASE)
                    await asyncio.sleep(fault.random.uniform(0.1, 1))
                wire.slow(0.3, DATABASE)
                await asyncio.to_thread(scene.insert, 5)
                await asyncio.sleep(away_s)
                wire.slow(0, DATABASE)
                await scene.drafted()
        fault.observe(f"people: {people.acts} acts done, {people.refused} refused by the outages")
        await scene.live(daemon)
        with psycopg.connect(scene.stack.db_url) as db:
            fault.holds("no double effect", audit.doubled(db))
        scene.end(daemon)
