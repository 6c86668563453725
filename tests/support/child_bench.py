"""Children of the learning loop for tests: the real one, and one whose training is a line or two."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from daemon.learning.job import EvaluateJob, TrainJob
from daemon.learning.ports import ChildEnd
from daemon.learning.process import run_child
from daemon.local.tiny import BASE

GENEROUS_S = 120.0
STUB = """
import errno, os, signal, subprocess, sys, time
from daemon.asr import families, ranks
from daemon.asr.training import Progress, TrainingError, TrainingResult
from daemon.learning import child

def train(family, settings, data, out, *, report, stop, resume):
    tell = lambda step: report(Progress("training", step, 9))
{body}
    return TrainingResult(None, stop(), 9, 9, 1, 1.0, {{}}, "cpu", "float32", 1, 1)

families.train = train
ranks.join = lambda *_: True
sys.exit(child.main(sys.argv[1:]))
"""


def children(pid: int) -> set[int]:
    """The processes whose parent is `pid`, zombies too."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(state[1]) == pid:
            found.add(int(stat.parent.name))
    return found


def the_child() -> int:
    """The one that this process started with `run_child`: its last argument is who started it."""
    ours = str(os.getpid()).encode()
    (pid,) = (
        pid for pid in children(os.getpid()) if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[-2:-1] == [ours]
    )
    return pid


def lives(pid: int) -> bool:
    """Whether a process runs, rather than waiting for its parent to notice its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def open_files() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    async with asyncio.timeout(GENEROUS_S):
        while not condition():  # noqa: ASYNC110 - nobody tells this process
            await asyncio.sleep(0.02)


class Bench:
    """Runs children in a folder and remembers what they said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "train.log"
        self.heard: list[Mapping[str, Any]] = []

    async def run(self, job: TrainJob | EvaluateJob, **options: Any) -> ChildEnd:
        async with asyncio.timeout(GENEROUS_S):
            return await run_child(job.write(self.folder / "job.json"), self.log, self.heard.append, **options)

    async def stub(self, body: str, *, processes: int = 1, **options: Any) -> ChildEnd:
        """A child as it is, whose training is `body`; in several processes none of them meets another."""
        program = self.folder / "stub.py"
        indented = "\n".join(f"    {line}" for line in body.splitlines())
        program.write_text(STUB.format(body=indented))
        job = train_job(self.folder, self.folder, processes=processes)
        return await self.run(job, program=(str(program),), **options)

    def steps(self) -> list[int]:
        return [progress["step"] for progress in self.heard if progress.get("phase") == "training"]


def train_job(
    data: Path, out: Path, *, processes: int = 1, nodes: int = 1, rendezvous: str = "", **settings: Any
) -> TrainJob:
    settings = {"base": str(BASE), "device": "cpu", "epochs": 2, "batch_size": 2} | settings
    return TrainJob("whisper", settings, data, out, True, processes, nodes, rendezvous)


def evaluate_job(frozen: Path, folder: Path, **changes: Any) -> EvaluateJob:
    model = {"family": "whisper", "options": {"model": str(BASE), "device": "cpu"}}
    return replace(
        EvaluateJob(model, model, frozen, None, against=3, confidence=0.9, out=folder / "evidence.json"), **changes
    )
