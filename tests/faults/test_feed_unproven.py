"""Realtime is back before REST: the connection cannot be proven yet, and is proven soon after it can be."""

from __future__ import annotations

import asyncio

import pytest
from chaos_proxy import Fault as Net
from fault_record import Fault
from scene import PROMPT, Scene


@pytest.mark.fault("F06", "rest-back-after-realtime")
async def test_rest_returns_later_than_realtime(fault: Fault, scene: Scene) -> None:
    away_s = fault.size(full=60, short=1)
    fault.injected(f"REST refused, and Realtime's connection reset; {away_s} s after it is back, so is REST")
    with scene.daemon(drafting=PROMPT) as daemon:
        await scene.live(daemon)
        scene.proxy.put(Net.REFUSE, "rest")
        scene.proxy.reset("realtime")
        unwritten = "the canary cannot be written; the feed is kept unproven"
        connected = await scene.until(lambda: daemon.said(unwritten), 30)
        fault.holds("connected and unproven", [] if connected else [daemon.said("feed")[-1]])
        await asyncio.to_thread(scene.insert, 5)
        await asyncio.sleep(away_s)
        scene.proxy.put(Net.NONE, "rest")
        await scene.live(daemon, since=1)
        await scene.drafted()
        scene.end(daemon)
