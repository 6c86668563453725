"""The wall clock of the daemon's machine is set, and the hour of daylight saving time comes and goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from daemon_process import DaemonProcess
from fault_record import Fault
from inside import WALL, Inside
from scene import Scene
from warm_start import Nest
from witness import Database, drafted_more_than_once

GAP_S = 40.0
"""The longest time without a look, where one comes every 30 s."""
LOOKED_S = 60.0
"""So long after a jump. At the jump itself everything is due, so a sweep that ended with it is missed 40 s later."""
LEASE_S = 45.0
AUTUMN, SPRING = datetime(2026, 10, 25, 1, tzinfo=UTC), datetime(2027, 3, 28, 1, tzinfo=UTC)
"""When Berlin sets its clocks."""

SetWall = Callable[[float], Any]
"""Set the daemon's clock to be so many seconds ahead of the true one."""


@pytest.mark.fault("F29", "clock-jump")
async def test_the_wall_clock_jumps(fault: Fault, scene: Scene, nest: Nest) -> None:
    """Nothing but the sweep finds clips here. It comes in time whatever the clock says, and the leases are right."""
    day, sweep_s = timedelta(days=1).total_seconds(), fault.size(full=30, short=6)
    jumps: dict[str, Callable[[], float]] = {"+1 day": lambda: day, "-1 day": lambda: -day}
    if fault.full:
        jumps |= {"autumn": lambda: _before(AUTUMN), "spring": lambda: _before(SPRING), "true": lambda: 0.0}
    else:
        fault.observe(f"a sweep of 30 s scaled to {sweep_s} s")
    fault.injected(f"the daemon's clock is set: {', '.join(jumps)}; TZ=Europe/Berlin, 60 inserts each time")
    drafting = {"sweep_seconds": sweep_s, "lease_seconds": LEASE_S, "batch_clips": 8, "claim_clips": 32}
    leases: list[float] = []
    with _daemon(fault, scene, nest, drafting) as (daemon, set_wall), _connected(scene) as db:
        for name, offset_s in jumps.items():
            began = time.monotonic()
            set_wall(offset_s())
            scene.insert_at_once(60)
            async with asyncio.TaskGroup() as tasks:
                looking = tasks.create_task(_look(db, leases))
                await asyncio.sleep(LOOKED_S / 30 * sweep_s)
                looking.cancel()
            looks = [at for at, _, path in scene.proxy.requests if path.endswith("ambara_snapshot") and at > began]
            gaps = [after - before for before, after in pairwise([began, *looks, time.monotonic()])]
            fault.observe(f"{name}: longest gap {max(gaps):.0f} s")
            fault.holds("sweep gap", [gap for gap in gaps if gap > GAP_S / 30 * sweep_s])
            await scene.drafted(30, name="I1 drafted within a gap")
        jumped = daemon.said("the wall clock jumped; everything is due now")
        fault.holds("the jumps were seen", [] if len(jumped) >= len(jumps) else jumped)
        # By the database's clock: never over before its time, never longer than it was asked for.
        fault.holds("leases right", [each for each in leases if not LEASE_S * 0.6 < each <= LEASE_S])
        fault.holds("leases seen", [] if leases else ["none"])
        fault.holds("each clip once", [n] if (n := drafted_more_than_once(db)) else [])
        scene.end(daemon)


def _before(moment: datetime) -> float:
    """So that `moment` comes in 15 s."""
    return (moment - timedelta(seconds=15) - datetime.now(UTC)).total_seconds()


async def _look(db: Database, leases: list[float]) -> None:
    """Note what is left of every lease, again and again."""
    while True:
        query = "select extract(epoch from lease_until - clock_timestamp())::float from draft_state"
        leases += [left for (left,) in db.execute(query).fetchall() if left is not None]
        await asyncio.sleep(0.1)


@contextmanager
def _connected(scene: Scene) -> Iterator[Database]:
    with psycopg.connect(scene.stack.db_url, autocommit=True) as db:
        yield db


@contextmanager
def _daemon(
    fault: Fault,
    scene: Scene,
    nest: Nest,
    drafting: Mapping[str, Any],
) -> Iterator[tuple[DaemonProcess, SetWall]]:
    """A daemon that only sweeps, and its clock: the whole of it in full, where libfaketime is installed."""
    sections = {"drafting": drafting, "realtime": {"enabled": False}}
    library = _libfaketime() if fault.full else None
    if library is None:
        fault.observe("substitute: the clock as Python reads it, in place of libfaketime")
        inside = Inside(scene.folder / "inside")
        with nest.in_scene(scene, "daemon", env={"TZ": "Europe/Berlin", **inside.env}, **sections) as daemon:
            yield daemon, lambda offset_s: inside.do(daemon, WALL, shift_s=offset_s)
        return
    fault.observe("libfaketime")
    file = scene.folder / "wall"
    env = {
        "TZ": "Europe/Berlin",
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    file.write_text("+0\n")
    with scene.daemon("daemon", env=env, **sections) as daemon:
        yield daemon, lambda offset_s: file.write_text(f"{offset_s:+.0f}\n")


def _libfaketime() -> Path | None:
    """Of the distribution, or of the package of that name."""
    places = [*Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")]
    if (found := find_spec("libfaketime")) and found.origin:
        places += Path(found.origin).parent.rglob("libfaketime.so.1")
    return next(iter(places), None)
