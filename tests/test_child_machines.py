"""Machines that train one version together, as processes of one: each finds the others, and all end together."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from another_machine import joined
from audiofolders import write_side
from child_bench import Bench, children, the_child, train_job, until
from safetensors.numpy import load_file

from daemon.asr import ranks
from daemon.asr.training import TrainingError
from daemon.errors import TemporaryError
from daemon.learning import together
from daemon.learning.job import TrainJob
from daemon.learning.machines import Call, Life, calling, calls, software, towards
from daemon.learning.ports import ChildDone, ChildEnd, ChildFailed, ChildStopped
from daemon.local.sockets import free_port
from daemon.local.speech import speak_corpus
from daemon.local.tiny import BASE

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds its child through /proc")

SETTINGS: Mapping[str, Any] = {
    "learning_rate": 1e-3,
    "batch_size": 4,
    "gradient_accumulation": 2,
    "epochs": 8,
    "eval_steps": 20,
    "save_steps": 4,
    "spec_augment": False,
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    clips = speak_corpus("B", 22, seed=51)
    write_side(tmp_path / "data", "train", clips[:17])
    return write_side(tmp_path / "data", "test", clips[17:])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The carried base without dropout: chance falls otherwise for each process."""
    folder = Path(shutil.copytree(BASE, tmp_path / "base"))
    config = json.loads((folder / "config.json").read_text())
    off = {name: 0.0 for name in config if name.endswith("dropout")}
    (folder / "config.json").write_text(json.dumps(config | off))
    return folder


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
        stopped = await _interrupted(bench, job, 7, lambda: os.kill(the_child(), signal.SIGTERM))
        assert stopped == ChildStopped(), bench.log.read_text()
        two = await bench.run(job)
        assert isinstance(two, ChildDone), bench.log.read_text() + (state / "said-1").read_text()
        await until(lambda: "Trained." in (state / "said-1").read_text())
        assert children(other.pid) == set()
        other.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(other.wait, 60) == 130
    assert two.result["resumed_from"] >= 7
    assert (two.result["processes"], one.result["processes"]) == (2, 1)
    assert two.result["step"] == one.result["step"]
    assert two.result["loss"] == pytest.approx(one.result["loss"], rel=1e-5)
    assert two.result["wer"] == one.result["wer"]
    left, right = (load_file(each.folder / "model" / "model.safetensors") for each in (alone, bench))
    assert all(abs(left[name] - right[name]).max() < 1e-5 for name in left)
    assert {path.name for path in bench.folder.iterdir()} == {"job.json", "train.log", "model", "result.json"}


@pytest.mark.parametrize(
    ("how", "reason", "message"),
    [
        (signal.SIGTERM, "machines", "Machine 1 was told to leave."),
        (signal.SIGKILL, "crashed", "If another machine is gone, look after `ambara join` there."),
    ],
)
async def test_one_leaves(
    state: Path, bench: Bench, job: TrainJob, how: signal.Signals, reason: str, message: str
) -> None:
    """All end; with another in its place the training goes on where it was."""
    with joined(state) as other:
        end = await _interrupted(bench, job, 5, lambda: other.send_signal(how))
    assert isinstance(end, ChildFailed)
    assert end.reason == reason, bench.log.read_text()
    assert message in end.message
    assert not (bench.folder / "machines").exists()
    with joined(state):
        done = await bench.run(job)
    assert isinstance(done, ChildDone), bench.log.read_text()
    assert done.result["resumed_from"] >= 4


async def test_it_ends_while_nobody_comes(state: Path, bench: Bench, job: TrainJob) -> None:
    """A daemon that is stopped does not wait for machines; meanwhile it tells how many are there."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bench.run(job))
        await until(lambda: bool(bench.heard))
        assert len(calls(state, 1)) == 1
        os.kill(the_child(), signal.SIGTERM)
    assert task.result() == ChildStopped()
    assert bench.heard == [{"phase": "machines", "step": 1, "steps": 2}]
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


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """Of machine 0, where there is no job."""
    (tmp_path / "machines").mkdir()
    return Call("7", str(tmp_path / "train.json"), 3, "127.0.0.1:1", software(), tmp_path / "machines")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"software": software() | {"torch": "1.0"}}, "and 1.0 on machine 0: install the same."),
        ({"software": {"rarity": "3"}}, "Machine 2: rarity is not there, and 3 on machine 0: install the same."),
        ({}, "/train.json cannot be read there: all need the state directory under one name."),
        ({"job": __file__}, "test_child_machines.py is of another release there: install the same."),
    ],
)
def test_a_machine_that_cannot_join_says_so_where_people_look(
    call: Call, changes: Mapping[str, Any], message: str
) -> None:
    wanted = replace(call, **changes)
    end = together.join(wanted, 2, lambda: False)
    assert end
    assert (end["event"], end["reason"]) == ("failed", "machines")
    assert message in end["message"]
    assert wanted.told() == [end]
    assert replace(wanted, id="8").told() == []


def test_who_is_one_too_many_disturbs_nobody(call: Call) -> None:
    """A second one of a number, and one of a number that there is not, end no training that goes on."""
    assert call.take(2)
    assert together.join(call, 2, lambda: False) is None
    with pytest.raises(
        TemporaryError, match=r"There are 3 machines to train, from 0 to 2: mend nodes there, or --node"
    ):
        together.join(call, 3, lambda: False)
    assert call.told() == []


def test_a_call_is_there_while_it_lasts_and_another_is_another(state: Path, bench: Bench, job: TrainJob) -> None:
    file = job.write(bench.folder / "job.json")
    with calling(replace(job, nodes=1), file) as alone:
        assert alone is None
        assert calls(state, 1) == []
    with calling(job, file) as first:
        assert first
        assert calls(state, 1) == [first]
        assert first.take(1)
        assert calls(state, 1) == []
    with calling(job, file) as second:
        assert second
        assert calls(state, 1) == [second]
        assert first.meeting != second.meeting
        (second.folder / "call.json").write_text('{"of": "another release"}')
        assert calls(state, 1) == []


def test_a_machine_leaves_what_is_over(bench: Bench, job: TrainJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended, begun anew, or machine 0 is gone; but not where the disk is away for a moment."""
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    file = job.write(bench.folder / "job.json")

    def later(life: Life, seconds: float) -> bool:
        over = life.is_over()
        clock[0] += seconds
        return life.is_over() or over

    with calling(job, file) as call:
        assert call
        life = Life(call)
        for _ in range(5):
            os.utime(call.folder / "call.json", (clock[0], clock[0]))
            assert not later(life, 100)
        call.folder.rename(away := call.folder.with_name("away"))
        assert not later(life, 5)
        away.rename(call.folder)
        assert not later(life, 5)
        assert later(life, 200)
        assert later(Life(replace(call, id="before")), 11)
    assert later(Life(call), 11)


@pytest.fixture
def meeting(monkeypatch: pytest.MonkeyPatch) -> str:
    """Of two processes, of which this one is the first; the other never comes."""
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "cpu")  # what is set there is taken back
    monkeypatch.setattr(ranks, "GATHER_S", 1.0)
    return f"tcp://127.0.0.1:{free_port()}/7"


@pytest.mark.parametrize(
    ("rank", "message"), [("0", "Of 2 processes 1 came to 127.0.0.1"), ("1", "machine 0 does not answer at 127.0.0.1")]
)
def test_who_does_not_come_is_not_waited_for_for_ever(
    meeting: str, rank: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(TrainingError, match=message) as caught:
        ranks.join("cpu", meeting)
    assert caught.value.reason == "machines"
    assert ranks.count() == 1


def test_a_port_that_is_taken_is_told(meeting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("", int(meeting.rpartition(":")[2].partition("/")[0])))
        taken.listen()
        with pytest.raises(TrainingError, match="let rendezvous be an address of this machine and a port that is free"):
            ranks.join("cpu", meeting)


def test_a_machine_without_a_card_is_told(meeting: str) -> None:
    """Each would wait for the other for ever."""
    place = urlsplit(meeting)

    def another_comes(here: int, of: int) -> None:
        if here < of:
            store = torch.distributed.TCPStore(str(place.hostname), int(place.port or 0), wait_for_workers=False)
            torch.distributed.PrefixStore("7", store).add("here", 1)

    with pytest.raises(TrainingError, match="Some machines have a graphics card"):
        ranks._gather(meeting, True, lambda: False, another_comes)


def test_the_interface_is_the_one_that_leads_there() -> None:
    assert towards("127.0.0.1:1") == {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    assert towards("no-such-host.invalid:1") == {}
