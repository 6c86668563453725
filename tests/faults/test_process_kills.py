"""Daemons that are killed, and daemons that work side by side."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AbstractContextManager

import audit
import psycopg
import pytest
from daemon_process import DaemonProcess
from fault_record import Fault
from scene import HEALED_S, Scene
from warm_start import Nest
from witness import claimed, scalar

LANES = 3
OWN_TIMES = {"batch_clips": 8}
"""Lease and sweep are as the daemon has them."""
READY_S = 30.0
"""Until a daemon that follows a killed one is ready, importing PyTorch aside."""
COLD_EVERY = 6
"""In full, one start of so many is from nothing."""
GUARD_S = 150.0
"""Guard for those, on a machine that is busy with other things."""


@pytest.mark.fault("F12", "two-daemons")
async def test_two_daemons_share_one_queue(fault: Fault, scene: Scene, nest: Nest) -> None:
    """A load in one statement, then clips as they come; the version that both serve drafts each of them once."""
    clips = fault.size(full=500, short=60)
    fault.injected(f"2 daemons, {clips} inserts: half in one statement, half one by one; 3 people")
    with nest.in_scene(scene, "one") as one, nest.in_scene(scene, "two") as two:
        load = scene.insert_at_once(clips // 2)
        async with scene.people(load[:30], 3, pause_s=0.5):
            for _ in range(clips - clips // 2):
                scene.insert(1)
                await asyncio.sleep(fault.random.uniform(0, 0.15))
        await scene.drafted()
        with psycopg.connect(scene.stack.db_url, autocommit=True) as db:
            fault.holds("each clip once", audit.doubled(db))
            rows = db.execute("select worker, count(*) from drafts group by worker").fetchall()
            fault.observe(f"shared {' : '.join(str(count) for _, count in rows)}")
            fault.holds("both work", [] if len(rows) == 2 else rows)
        scene.end(one, two)


@pytest.mark.fault("F13", "kill9-50")
async def test_killed_at_random_moments(fault: Fault, scene: Scene, nest: Nest) -> None:
    """Several lanes of daemons, each killed and followed by another; in full some of them start from nothing.

    With the daemon's own lease and sweep: a shorter one would find too soon what was left.
    """
    kills = fault.size(full=50, short=3)
    fault.injected(f"{kills} x kill -9 at random moments, {LANES} daemons at a time; inserts and 3 people meanwhile")
    storm = _Storm(fault, scene, nest)
    clips = scene.insert_at_once(40)
    async with scene.people(clips, 3, pause_s=0.5) as people, asyncio.TaskGroup() as tasks:
        lanes = [tasks.create_task(storm.lane(kills)) for _ in range(LANES)]
        pouring = tasks.create_task(storm.pour())
        await asyncio.wait(lanes)
        pouring.cancel()
    with nest.in_scene(scene, "last", drafting=OWN_TIMES) as last:
        # After the kill, not after the start of the one that finds what was left.
        await scene.drafted(HEALED_S)
        killed = ", ".join(f"{count} {moment}" for moment, count in sorted(storm.killed.items()))
        fault.observe(f"killed {killed}; {people.acts} acts of people, {people.refused} refused")
        for what, starts in (("ready", storm.warm), ("from nothing", storm.cold)):
            if starts:
                fault.observe(f"{what} in {min(starts):.1f} to {max(starts):.1f} s")
        fault.holds("READY in time", [took for took in storm.warm if took > READY_S] + storm.never)
        fault.holds("some were ready", [] if storm.warm else ["none"])
        with psycopg.connect(scene.stack.db_url, autocommit=True) as db:
            fault.holds("no claim left", [n] if (n := claimed(db)) else [])
            fault.holds("one version", [n] if (n := scalar(db, "select count(*) from model_versions")) != 1 else [])
        scene.kept()
        scene.silent(last, *storm.daemons)
        scene.same(last)


class _Storm:
    """Generations of daemons, and what became of them."""

    def __init__(self, fault: Fault, scene: Scene, nest: Nest) -> None:
        self._fault, self._scene, self._nest = fault, scene, nest
        self._started = 0
        self.killed: Counter[str] = Counter()
        self.warm: list[float] = []
        """Seconds to READY, of those that had everything imported; the next: of those from nothing."""
        self.cold: list[float] = []
        self.never: list[str] = []
        """The last words of those that were not ready in any time."""
        self.daemons: list[DaemonProcess] = []

    async def pour(self) -> None:
        """Inserts without an end."""
        while True:
            await asyncio.to_thread(self._scene.insert, self._fault.random.randrange(1, 6))
            await asyncio.sleep(self._fault.random.uniform(0.2, 1.0))

    async def lane(self, kills: int) -> None:
        """One daemon after the other, until all lanes together have had so many; each is killed in the middle."""
        while self._started < kills:
            self._started += 1
            cold = self._fault.full and self._started % COLD_EVERY == 0
            began = time.monotonic()
            with self._start(f"daemon{self._started}", cold=cold) as daemon:
                self.daemons.append(daemon)
                await self._live(daemon, began, cold=cold)
                self.killed[self._moment(daemon)] += 1
                daemon.kill()

    def _start(self, name: str, *, cold: bool) -> AbstractContextManager[DaemonProcess]:
        if not cold:
            return self._nest.in_scene(self._scene, name, ready=False, drafting=OWN_TIMES)
        state = {"STATE_DIRECTORY": str(self._scene.folder / "state")}
        return self._scene.daemon(name, cold=True, ready=False, env=state, drafting=OWN_TIMES)

    async def _live(self, daemon: DaemonProcess, began: float, *, cold: bool) -> None:
        """Until a moment that the dice choose: in the start, or a while after it."""
        dice = self._fault.random
        if dice.random() < 0.3:
            await asyncio.sleep(dice.uniform(0.1, 8.0 if cold else 2.0))
        elif await self._scene.until(lambda: daemon.said("ready"), GUARD_S):
            (self.cold if cold else self.warm).append(time.monotonic() - began)
            await asyncio.sleep(dice.uniform(0.0, 3.0))
        else:
            self.never.append(daemon.output[-1000:])
        self._fault.holds("I8 ends by the kill alone", [] if daemon.running else [daemon.output[-1000:]])

    def _moment(self, daemon: DaemonProcess) -> str:
        """What it was doing, as far as one can see from outside."""
        if not daemon.said("loading the model"):
            return "before the first word"
        if not daemon.said("ready"):
            return "while loading"
        with psycopg.connect(self._scene.stack.db_url, autocommit=True) as db:
            query = "select count(*) from draft_state where lease_until > now() and worker like %s"
            return "with claims" if scalar(db, query, f"%-{daemon.child.pid}-%") else "idle"
