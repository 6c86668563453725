"""Machines that train one version together, as processes of one: each finds the others, and all end together."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import training_set
from another_machine import joined
from child_bench import Bench, children, the_child, train_job, until
from safetensors.numpy import load_file

from daemon.learning.job import TrainJob
from daemon.learning.machines import calls
from daemon.learning.ports import ChildDone, ChildEnd, ChildFailed, ChildStopped
from daemon.local.sockets import free_port

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds its child through /proc")

SETTINGS = {**training_set.SETTINGS, "epochs": 8}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return training_set.spoken_set(tmp_path)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return training_set.calm_base(tmp_path)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory with the folder of a version, for two processes on two processors."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "state" / "models" / "0007").mkdir(parents=True)
    return tmp_path / "state"


@pytest.fixture
def bench(state: Path) -> Bench:
    return Bench(state / "models" / "0007")


@pytest.fixture
def job(data: Path, base: Path, bench: Bench) -> TrainJob:
    rendezvous = f"127.0.0.1:{free_port()}"
    return train_job(data, bench.folder, nodes=2, rendezvous=rendezvous, base=str(base), **SETTINGS)


async def test_two_machines_come_to_the_same_as_one(
    state: Path, data: Path, base: Path, bench: Bench, job: TrainJob, tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    alone = Bench(tmp_path / "one")
    one = await alone.run(train_job(data, alone.folder, base=str(base), **SETTINGS))
    assert isinstance(one, ChildDone), alone.log.read_text()
    with joined(state) as other:
        lost = await _interrupted(bench, job, 5, lambda: os.kill(next(iter(children(other.pid))), signal.SIGKILL))
        assert isinstance(lost, ChildFailed)
        assert (lost.reason, lost.message[:20]) == ("killed", "Machine 1: it was ki"), bench.log.read_text()
        two = await bench.run(job)
        assert isinstance(two, ChildDone), bench.log.read_text() + (state / "said-1").read_text()
        await until(lambda: "Trained." in (state / "said-1").read_text())
        assert children(other.pid) == set()
        other.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(other.wait, 60) == 130
    assert two.result["resumed_from"] >= 4
    assert (two.result["processes"], one.result["processes"]) == (2, 1)
    assert two.result["step"] == one.result["step"]
    assert two.result["loss"] == pytest.approx(one.result["loss"], rel=1e-5)
    assert two.result["wer"] == one.result["wer"]
    left, right = (load_file(each.folder / "model" / "model.safetensors") for each in (alone, bench))
    assert all(abs(left[name] - right[name]).max() < 1e-5 for name in left)
    assert {path.name for path in bench.folder.iterdir()} == {"job.json", "train.log", "model", "result.json"}


async def test_one_is_gone_without_a_word(state: Path, bench: Bench, job: TrainJob) -> None:
    """All end, and nothing of the attempt is left for others to join."""
    with joined(state) as other:
        end = await _interrupted(bench, job, 1, other.kill)
    assert isinstance(end, ChildFailed)
    assert end.reason == "crashed", bench.log.read_text()
    assert "If another machine is gone, look after `ambara join` there." in end.message
    assert not (bench.folder / "machines").exists()


async def test_it_ends_while_nobody_comes(state: Path, bench: Bench, job: TrainJob) -> None:
    """A daemon that is stopped does not wait for machines; meanwhile it tells how many are there."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bench.run(job))
        await until(lambda: bool(bench.heard))
        assert len(calls(state, 1)) == 1
        os.kill(the_child(), signal.SIGTERM)
    assert task.result() == ChildStopped()
    assert bench.heard == [{"phase": "waiting for machines", "step": 1, "steps": 2}]
    assert calls(state, 1) == []


async def _interrupted(bench: Bench, job: TrainJob, at: int, how: Any) -> ChildEnd:
    """Train until a step is reached, and do that then."""
    before = len(bench.heard)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bench.run(job))
        await until(
            lambda: task.done() or any(e["step"] >= at for e in bench.heard[before:] if e.get("phase") == "training")
        )
        how()
    return task.result()
