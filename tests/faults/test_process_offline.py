"""A machine that has never had a way to the Internet."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import no_route
import pytest
from daemon_process import READY_S, DaemonProcess, environment, write_config
from fault_record import Fault
from inside import Inside
from scene import Scene
from warm_start import settings

from daemon.local.process import Nursery

SLOWER = 1.5
"""How much longer than with a network a start may take ..."""
SLOWER_S = 10.0
"""... on a machine that is busy with other things."""


@pytest.mark.long
@pytest.mark.fault("F32", "hub-offline")
async def test_there_is_no_way_to_the_hub(fault: Fault, scene: Scene) -> None:
    """Nothing says so to the daemon: HF_HUB_OFFLINE is not set."""
    fault.injected("no route but to the project, from boot; 20 inserts")
    if not no_route.possible():
        fault.observe("substitute: with a route, calls of connect and of the name server counted alone")
    async with _start(scene, "with", []) as (_, normal_s, _):
        pass
    async with AsyncExitStack() as stack:
        before: Sequence[str] = []
        if no_route.possible():
            before = await stack.enter_async_context(no_route.way_out(scene.folder, scene.proxy.port))
        daemon, took_s, inside = await stack.enter_async_context(_start(scene, "without", before))
        fault.observe(f"ready in {took_s:.1f} s, with a network in {normal_s:.1f} s")
        fault.holds("READY in normal time", [took_s] if took_s > SLOWER * normal_s + SLOWER_S else [])
        await asyncio.to_thread(scene.insert, 20)
        await scene.drafted()
        await scene.live(daemon)
        project = f"'127.0.0.1', {scene.proxy.port}"
        asked = inside.connects()
        fault.holds("calls were seen", [] if asked else ["none"])
        fault.holds("0 outward connects", [each for each in asked if project not in each[1]])
        scene.end(daemon)


@asynccontextmanager
async def _start(scene: Scene, name: str, before: Sequence[str]) -> AsyncIterator[tuple[DaemonProcess, float, Inside]]:
    """A daemon from nothing, with `before` before its command; with it, how long it took to be ready."""
    folder = scene.folder / name
    folder.mkdir()
    inside = Inside(folder / "inside")
    log = folder / "daemon.log"
    command = [*before, sys.executable, "-m", "daemon", "--config", str(write_config(folder, **settings(scene))), "run"]
    env = environment(scene, folder) | inside.env
    del env["HF_HUB_OFFLINE"]
    nursery = Nursery()
    began = time.monotonic()
    daemon = DaemonProcess(nursery.spawn(command, log=log, env=env, cwd=folder), log)
    try:
        # In a thread: what the daemon sends goes through this loop.
        await asyncio.to_thread(daemon.wait_for, "ready", guard_s=READY_S)
        yield daemon, time.monotonic() - began, inside
    finally:
        daemon.kill()
        nursery.close()
