"""Two real processes that train together come to what one comes to alone; they are killed, stopped and gone on with."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import training_set
from child_bench import Bench, children, lives, the_child, train_job, until
from safetensors.numpy import load_file

from daemon.asr.whisper.checkpoints import MANIFEST
from daemon.learning import confine
from daemon.learning.job import TrainJob
from daemon.learning.ports import ChildDone, ChildEnd, ChildFailed, ChildStopped

FILTERED = platform.system() == "Linux" and platform.machine() in confine._SOCKET
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds its child through /proc")

STEPS = 48


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return training_set.spoken_set(tmp_path)


@pytest.fixture
def calm(tmp_path: Path) -> Path:
    return training_set.calm_base(tmp_path)


@pytest.fixture
def benches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Bench, Bench]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return Bench(tmp_path / "one"), Bench(tmp_path / "two")


async def test_two_come_to_the_same_as_one_though_they_are_killed_and_stopped(
    data: Path, calm: Path, benches: tuple[Bench, Bench]
) -> None:
    alone, together = benches
    one = await trained(alone, train_job(data, alone.folder, base=str(calm), **training_set.SETTINGS))
    job = train_job(data, together.folder, processes=2, base=str(calm), **training_set.SETTINGS)

    killed = await interrupted(together, job, at=5, how=lambda: os.kill(the_second(), signal.SIGKILL))
    assert isinstance(killed, ChildFailed)
    assert killed.reason == "killed", together.log.read_text()

    stopped = await interrupted(together, job, at=7, how=lambda: os.kill(the_child(), signal.SIGTERM))
    assert stopped == ChildStopped(), together.log.read_text()
    newest = max((together.folder / "checkpoints").iterdir(), key=lambda path: int(path.name.partition("-")[2]))
    sealed = json.loads((newest / MANIFEST).read_text())["files"]
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= sealed.keys(), "the chance of each is gone on with"

    two = await trained(together, job)
    assert together.heard[0]["network"] == ("none" if FILTERED else "offline-only")
    assert two["resumed_from"] >= 7
    assert (one["processes"], one["batch_size"], one["gradient_accumulation"]) == (1, 4, 2)
    assert (two["processes"], two["batch_size"], two["gradient_accumulation"]) == (2, 4, 1)
    assert (two["step"], two["clips"]) == (one["step"], one["clips"]) == (STEPS, 17)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert two["wer"] == one["wer"]
    left, right = (load_file(bench.folder / "model" / "model.safetensors") for bench in benches)
    assert left.keys() == right.keys()
    assert all(abs(left[name] - right[name]).max() < 1e-5 for name in left)
    assert {path.name for path in together.folder.iterdir()} == {"job.json", "train.log", "model", "result.json"}


async def trained(bench: Bench, job: TrainJob) -> Mapping[str, Any]:
    end = await bench.run(job)
    assert isinstance(end, ChildDone), bench.log.read_text()
    return end.result


async def interrupted(bench: Bench, job: TrainJob, at: int, how: Callable[[], None]) -> ChildEnd:
    """Let two train, and do that when a step is reached. Both are gone when it returns."""
    before = len(bench.heard)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bench.run(job))
        await until(lambda: task.done() or reached(bench.heard[before:], at))
        pids = children(the_child())
        how()
    assert len(pids) == 2
    await until(lambda: not any(lives(pid) for pid in pids))
    return task.result()


def reached(heard: Iterable[Mapping[str, Any]], step: int) -> bool:
    return any(told["step"] >= step for told in heard if told.get("phase") == "training")


def the_second() -> int:
    (pid,) = (pid for pid in children(the_child()) if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes())
    return pid
