"""One lost answer, and the daemon's own lease and sweep: no clip waits for the one and then for the other."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from fault_record import Fault
from scene import Scene
from witness import drafted_more_than_once

WITHIN_S = 30.0
"""Sooner than a lease of 45 s ends: what may have been claimed has to be given back."""


@pytest.mark.fault("F11", "rest-lost-reply-once")
async def test_the_answer_of_each_call_is_lost_once(fault: Fault, scene: Scene) -> None:
    calls = ["claim", "submit", "snapshot", *(["beat"] if fault.full else [])]
    fault.injected(f"the answer of each of {', '.join(calls)} is lost, one at a time; default lease and sweep")
    with scene.daemon(drafting={}) as daemon:
        await scene.live(daemon)
        for call in calls:
            scene.proxy.lose_answers(1, 1.0, fault.random, of=f"/ambara_{call}")
            await asyncio.to_thread(scene.insert, 3)
            lost = await scene.until(lambda: not scene.proxy.still_to_lose(), 30)
            fault.holds("they were lost", [] if lost else [call])
            await scene.drafted(WITHIN_S, name=f"I1 within {WITHIN_S:.0f} s")
        with psycopg.connect(scene.stack.db_url) as db:
            fault.holds("no double effect", [n] if (n := drafted_more_than_once(db)) else [])
        scene.end(daemon)
