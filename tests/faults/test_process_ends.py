"""Daemons that are asked to end: in the middle of work, and before they have begun with it."""

from __future__ import annotations

import asyncio
import signal
import time

import psycopg
import pytest
from daemon_process import DaemonProcess
from fault_record import Fault
from scene import Scene
from warm_start import Nest
from witness import Database, claimed, scalar

BUSY_S = 10.0
"""An end in the middle of drafting; the service manager would wait for 90 s."""
START_S = 5.0
"""An end in the middle of a start."""
LOADS_S = 2.0
"""So long a model is loaded at least: nearly all of that is importing PyTorch."""
START_GUARD_S = 150.0
"""Guard: until it begins to load, on a machine that is busy with other things."""


async def ended(scene: Scene, daemon: DaemonProcess, within_s: float) -> tuple[int | None, float]:
    """Ask it to end. Returns the exit status, None if it did not, and how long it took."""
    began = time.monotonic()
    daemon.child.send_signal(signal.SIGTERM)
    await scene.until(lambda: not daemon.running, within_s + 1)
    return daemon.child.poll(), time.monotonic() - began


def clean(
    scene: Scene, daemon: DaemonProcess, db: Database, allowed: tuple[int, ...], end: tuple[int | None, float]
) -> None:
    """Record that a daemon ended well: its status, its last words, nothing that it still holds."""
    code, _ = end
    scene.fault.holds("exit 0", [] if code in allowed else [f"exit {code}: {daemon.output[-1500:]}"])
    scene.fault.holds("no traceback", [daemon.output[-1500:]] if "Traceback" in daemon.output else [])
    scene.fault.holds("claims given back", [n] if (n := claimed(db)) else [])
    scene.fault.holds("not listed any more", db.execute("select worker from ambara_daemons").fetchall())


@pytest.mark.fault("F16", "sigterm-busy")
async def test_stopped_while_it_drafts(fault: Fault, scene: Scene, nest: Nest) -> None:
    times = fault.size(full=18, short=3)
    fault.injected(f"{times} x SIGTERM while it drafts, at least 60 clips before it")
    took: list[float] = []
    with psycopg.connect(scene.stack.db_url, autocommit=True) as db:
        for number in range(times):
            with nest.in_scene(scene, f"daemon{number}") as daemon:
                if len(scene.undrafted()) < 60:  # the one before left most of them
                    scene.insert_at_once(60)
                busy = await scene.until(lambda: claimed(db), 30)
                fault.holds("stopped while busy", [] if busy else ["it never claimed anything"])
                await asyncio.sleep(fault.random.uniform(0.0, 0.7))
                end = await ended(scene, daemon, BUSY_S)
                took.append(end[1])
                clean(scene, daemon, db, (0,), end)
                scene.silent(daemon)
        fault.holds("in time", [each for each in took if each > BUSY_S])
        fault.observe(f"ended in {min(took):.1f} to {max(took):.1f} s")
        with nest.in_scene(scene, "last") as last:
            await scene.drafted()
            scene.end(last)


@pytest.mark.fault("F17", "sigterm-start")
async def test_stopped_while_it_starts(fault: Fault, scene: Scene) -> None:
    """In the first moments there is nothing of the daemon yet that could hear: then the signal itself ends it.

    A service manager takes both for a clean end. With clips that wait, so that the last moments are the first work.
    """
    times = fault.size(full=10, short=2)
    fault.injected(f"{times} x SIGTERM in the start of a process from nothing, most of them while it loads the model")
    scene.insert_at_once(20)
    took: list[float] = []
    unheard = begun = 0
    with psycopg.connect(scene.stack.db_url, autocommit=True) as db:
        for number in range(times):
            with scene.daemon(f"daemon{number}", cold=True, ready=False) as daemon:
                if number % 5:  # the others in its first moments
                    await scene.until(lambda it=daemon: it.said("loading the model"), START_GUARD_S)
                await asyncio.sleep(fault.random.uniform(0, LOADS_S))
                spoken, ready = bool(daemon.output), bool(daemon.said("ready"))
                end = await ended(scene, daemon, START_S)
                took.append(end[1])
                unheard += end[0] == -signal.SIGTERM
                begun += ready
                clean(scene, daemon, db, (0,) if spoken else (0, -signal.SIGTERM), end)
                scene.silent(daemon)
        fault.observe(
            f"ended in {min(took):.1f} to {max(took):.1f} s; {unheard} before anybody listened, {begun} after READY"
        )
        fault.holds("most were not ready yet", [begun] if begun > times / 2 else [])
        fault.holds("within 5 s", [each for each in took if each > START_S])
        fault.holds("no half-made version", [n] if (n := scalar(db, "select count(*) from model_versions")) > 1 else [])
        scene.kept()
