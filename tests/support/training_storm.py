"""Learning loops as processes of their own, and the one who kills them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import psycopg
import training_storm_family as quick
import training_storm_worker
from daemon_process import environment, write_config
from training_storm_worker import QUICK

from daemon.errors import PermanentError
from daemon.learning.registry import Registry
from daemon.local.process import Nursery

SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parents[1]


class Worker:
    """One learning loop under one name, started again whenever it has ended."""

    def __init__(
        self,
        stack: Any,
        folder: Path,
        name: str,
        *,
        state: Path,
        training: dict[str, Any],
        under: Sequence[str] = (),
    ) -> None:
        self.name = name
        self._nursery = Nursery()
        made = folder / name
        made.mkdir()
        self._log = made / "worker.log"
        config = write_config(
            made,
            model={"family": quick.FAMILY, "base": str(quick.base_model(made / "base"))},
            training=QUICK | training,
        )
        paths = [str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")]), str(ROOT)]
        self._env = environment(stack, made) | {"STATE_DIRECTORY": str(state), "PYTHONPATH": os.pathsep.join(paths)}
        self._command = [*under, sys.executable, training_storm_worker.__file__, name, str(config)]
        self.process = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        self._nursery.close()

    @property
    def output(self) -> str:
        """What it wrote."""
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        """End it as a power cut does, and begin anew under the same name."""
        self.process.kill()
        self.process.wait()
        self.process = self._start()

    def successor(self) -> subprocess.Popen[bytes]:
        """Another process of the same name beside it. Returns the old one."""
        old, self.process = self.process, self._start()
        return old

    def children(self) -> list[psutil.Process]:
        """The trainer, if there is one."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children()
        return []

    def _start(self) -> subprocess.Popen[bytes]:
        return self._nursery.spawn(self._command, log=self._log, env=self._env, cwd=ROOT)


class Killer:
    """Kills workers and trainers at random moments; mostly those that have a run in their hands."""

    def __init__(self, workers: Sequence[Worker], db: psycopg.Connection[Any], dice: random.Random) -> None:
        self._workers = workers
        self._db = db
        self._dice = dice
        self.killed: Counter[str] = Counter()

    async def strike(self) -> None:
        """One kill, within a second and a half of now, or as soon as there is such a one; of any worker at last."""
        whom = self._dice.choices(("a worker with a run", "a trainer", "any worker"), (4, 5, 1))[0]
        await asyncio.sleep(self._dice.uniform(0.1, 1.5))
        deadline = time.monotonic() + 3
        while not self._struck(whom):
            await asyncio.sleep(0.02)
            if time.monotonic() > deadline:
                whom = "any worker"
        self.killed[whom] += 1

    def _struck(self, whom: str) -> bool:
        if whom == "any worker":
            self._dice.choice(self._workers).kill()
            return True
        row = self._db.execute("select worker from training_runs where status = 'active'").fetchone()
        holder = next((worker for worker in self._workers if row and worker.name == row[0]), None)
        if holder is None:
            return False
        if whom == "a worker with a run":
            holder.kill()
            return True
        for child in holder.children():
            with suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGKILL)
                return True
        return False


def broken_versions(db: psycopg.Connection[Any], states: Sequence[Path]) -> list[str]:
    """Finished versions that lie nowhere as their rows say, byte for byte."""
    rows = db.execute(
        "select v.id, v.fingerprint from model_versions v join training_runs r on r.version_id = v.id "
        "where r.status = 'finished'"
    ).fetchall()
    return [f"version {number}" for number, mark in rows if mark not in {_mark(state, number) for state in states}]


def _mark(state: Path, version: int) -> str | None:
    try:
        return sha256((Registry(state / "models").check(version) / quick.WEIGHTS).read_bytes()).hexdigest()
    except PermanentError:
        return None
