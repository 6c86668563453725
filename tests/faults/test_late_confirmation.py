"""Realtime says "subscribed" seconds before changes flow: what happens in between is announced to nobody."""

from __future__ import annotations

import asyncio

import pytest
from fault_record import Fault
from scene import SELDOM, Scene


@pytest.mark.fault("F01", "rt-late-confirmation")
async def test_what_comes_between_the_subscription_and_its_confirmation(fault: Fault, scene: Scene) -> None:
    """Without a sweep in sight: it is the look after the confirmation that finds them."""
    rounds = fault.size(full=5, short=1)
    fault.injected(f"{rounds} x the connection is cut, the new one is confirmed 3 s late, 5 inserts in between")
    fault.observe("one sweep in ten minutes")
    with scene.daemon(drafting=SELDOM) as daemon:
        await scene.live(daemon)
        for number in range(1, rounds + 1):
            scene.realtime("delay_system", delay_s=3, count=1)
            scene.realtime("cut")
            # Struck, so the subscription was asked for; the look that follows it finds an empty queue.
            await scene.until(lambda: "delay_system" not in scene.realtime()["faults"], 30)
            await asyncio.sleep(0.5)
            scene.insert(5)
            await scene.drafted()
            await scene.live(daemon, since=number)
        scene.end(daemon)
