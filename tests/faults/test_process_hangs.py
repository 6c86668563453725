"""Daemons that are alive and do nothing: a blocked loop, a process that stands still, a device that never answers."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest
from chaos_proxy import Fault as Net
from daemon_process import environment, write_config
from fault_record import Fault
from inside import BLOCK, HANG, HOG, Inside
from scene import Scene
from service_manager import Child, Service, Unit, exits
from warm_start import Nest, settings
from witness import until

from daemon.cli.status import fetch
from daemon.local.process import Nursery

KILLED_S = 5.0
"""After WatchdogSec a daemon that hangs may live for so long."""
READY_S = 60.0
"""And be ready again, on a machine that is busy with other things."""


@pytest.mark.fault("F14", "loop-block")
async def test_the_event_loop_is_blocked(fault: Fault, scene: Scene, nest: Nest) -> None:
    """In full also for longer than the server bears a client that says nothing, which is 60 s after its last word."""
    blocks = [(HOG, 10), (BLOCK, 10), (BLOCK, 75)] if fault.full else [(BLOCK, 3)]
    how = ", ".join(f"{'computes' if code is HOG else 'sleeps'} for {seconds} s" for code, seconds in blocks)
    fault.injected(f"a callback {how}; 20 inserts meanwhile")
    inside = Inside(scene.folder / "inside")
    with nest.in_scene(scene, "daemon", env=inside.env) as daemon:
        await scene.live(daemon)
        for number, (code, seconds) in enumerate(blocks):
            await scene.until(lambda: _lag_s(scene) < 1, 120)  # the one before is forgotten
            lives = len(daemon.said("feed", state="live"))
            inside.do(daemon, code, seconds=seconds)
            await asyncio.to_thread(scene.insert, 20)
            # Two beats: the first may have been under way when the loop stood still.
            shown = await scene.until(lambda least=seconds - 1.5: _lag_s(scene) > least, seconds + 40)
            fault.holds("lag in the status", [] if shown else [_lag_s(scene)])
            logged = [line["seconds"] for line in daemon.said("the event loop was blocked") if line["worker"]]
            fault.holds("lag in the log", [] if len(logged) > number and logged[-1] > seconds - 1.5 else logged)
            await scene.drafted()
            await scene.live(daemon, since=lives if seconds > 50 else 0)
        scene.end(daemon)


@pytest.mark.fault("F15", "hang")
async def test_a_daemon_that_stands_still_is_replaced(
    fault: Fault,
    scene: Scene,
    nest: Nest,
) -> None:
    unit = Unit(watchdog_s=fault.size(full=20, short=6))
    fault.injected(f"SIGSTOP in the middle of 60 inserts, WatchdogSec={unit.watchdog_s:.0f}; 3 people")
    with _service(scene, nest, unit) as service:
        clips = scene.insert_at_once(60)
        async with scene.people(clips[:20], 3, pause_s=0.5):
            await asyncio.sleep(fault.random.uniform(0, 1.5))
            service.pause()
            began = time.monotonic()
            await until(lambda: service.restarts, "killed and started again")
            await _replaced(scene, service, began, unit.watchdog_s)


@pytest.mark.fault("F15", "hang-device")
async def test_a_device_that_never_answers_is_a_hang(fault: Fault, scene: Scene, nest: Nest) -> None:
    unit = Unit(watchdog_s=fault.size(full=20, short=6))
    patience_s = 3.0
    fault.injected(f"the model never answers; patience {patience_s:.0f} s, WatchdogSec={unit.watchdog_s:.0f}")
    fault.observe(f"the patience of 30 s and twice the audio scaled to {patience_s:.0f} s")
    inside = Inside(scene.folder / "inside")
    with _service(scene, nest, unit, inside.env) as service:
        inside.do(service, HANG, patience_s=patience_s)
        began = time.monotonic()
        scene.insert(10)
        await until(lambda: service.restarts, "killed and started again")
        fault.holds("says so", [] if service.said("the model hangs") else [service.output[-1000:]])
        await _replaced(scene, service, began, patience_s + unit.watchdog_s + unit.watchdog_s / 3)


@pytest.mark.fault("F15", "hang-not")
async def test_a_dependency_that_is_away_is_no_hang(fault: Fault, scene: Scene, nest: Nest) -> None:
    """Neither for a daemon at work, nor for one that starts: both are left alone for as long as it takes."""
    unit = Unit(watchdog_s=fault.size(full=20, short=6), start_timeout_s=5)
    away_s = (2.5 if fault.full else 1.5) * unit.watchdog_s
    fault.injected(
        f"Supabase refuses for {away_s:.0f} s from the start on, then swallows everything for {away_s:.0f} s; "
        f"WatchdogSec={unit.watchdog_s:.0f}, TimeoutStartSec=5"
    )
    scene.proxy.put(Net.REFUSE)
    with _service(scene, nest, unit, ready=False) as service:
        scene.insert(5)
        await asyncio.sleep(away_s)
        fault.holds("I8 not restarted", service.history[1:])
        scene.proxy.put(Net.NONE)
        await scene.drafted()
        scene.proxy.put(Net.BLACK_HOLE)
        scene.insert(5)
        await asyncio.sleep(away_s)
        scene.proxy.put(Net.NONE)
        await scene.drafted()
        await scene.live(service)
        scene.kept()
        scene.silent(service)
        fault.holds("I8 not restarted", [what for _, what in service.history if what not in {"started", "ready"}])


async def _replaced(scene: Scene, service: Service, began: float, patience_s: float) -> None:
    """Record what holds once a daemon that hung since `began` was killed and another was started."""
    fault = scene.fault
    took = next(at for at, what in service.history if what.startswith("exit")) - began
    fault.observe(f"substitute: a service manager of the suite's own in place of systemd; killed after {took:.1f} s")
    fault.holds("killed in time", [took] if took > patience_s + KILLED_S else [])
    await scene.until(lambda: len(service.times("ready")) == 2, READY_S)
    fault.holds("READY again", [] if len(service.times("ready")) == 2 else service.history)
    await scene.drafted()
    scene.kept()
    scene.silent(service)
    fault.holds("I8 one restart", [] if service.restarts == 1 and exits(service) == ["exit -6"] else service.history)


@contextmanager
def _service(
    scene: Scene,
    nest: Nest,
    unit: Unit,
    env: Mapping[str, str] | None = None,
    *,
    ready: bool = True,
) -> Iterator[Service]:
    """The daemon as a service; in full each of its starts is one from nothing."""
    folder = scene.folder / "service"
    folder.mkdir()
    nursery = Nursery()
    start = _from_nothing(scene, nursery) if scene.fault.full else _warm(scene, nest)
    with Service(lambda manager: start({**(env or {}), **manager}), folder / "daemon.log", unit) as service:
        if ready:
            service.wait_for("ready")
        yield service
    nursery.close()


Start = Callable[[Mapping[str, str]], Child]


def _warm(scene: Scene, nest: Nest) -> Start:
    def start(env: Mapping[str, str]) -> Child:
        return nest.start(scene, scene.folder / "service", env, **settings(scene)).child

    return start


def _from_nothing(scene: Scene, nursery: Nursery) -> Start:
    folder = scene.folder / "service"
    command = [sys.executable, "-m", "daemon", "--config", str(write_config(folder, **settings(scene))), "run"]

    def start(env: Mapping[str, str]) -> Child:
        surroundings = environment(scene, folder) | dict(env)
        return nursery.spawn(command, log=folder / "daemon.log", env=surroundings, cwd=folder)

    return start


def _lag_s(scene: Scene) -> float:
    """The worst lateness that `ambara status` shows now."""
    shown = fetch(scene.stack.url, scene.service_role_key)["daemons"]
    return max((float(each["state"].get("loop_lag_s", 0)) for each in shown), default=0.0)
