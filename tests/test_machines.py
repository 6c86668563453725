"""What machines that train together leave for each other, and how their processes meet."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from child_bench import train_job

from daemon.asr import ranks
from daemon.asr.training import TrainingError
from daemon.errors import TemporaryError
from daemon.learning import together
from daemon.learning.job import TrainJob
from daemon.learning.machines import Call, Life, calling, calls, software, towards
from daemon.local.sockets import free_port


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory with the folder of a version."""
    (tmp_path / "state" / "models" / "0007").mkdir(parents=True)
    return tmp_path / "state"


@pytest.fixture
def folder(state: Path) -> Path:
    return state / "models" / "0007"


@pytest.fixture
def job(folder: Path) -> TrainJob:
    place = f"127.0.0.1:{free_port()}"
    return train_job(folder / "data", folder, nodes=2, rendezvous=place, batch_size=4, gradient_accumulation=2)


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
        ({"job": __file__}, "test_machines.py is of another release there: install the same."),
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


@pytest.mark.parametrize(("here", "told"), [("settings", "machines"), ("base", "machines"), ("killed", "killed")])
def test_what_is_wrong_with_one_machine_alone_ends_no_run(
    call: Call, monkeypatch: pytest.MonkeyPatch, here: str, told: str
) -> None:
    """It has two cards of four, or its base is not mounted: with that mended, the run is gone on with."""
    end = {"event": "failed", "reason": here, "message": "it has 2 cards."}
    monkeypatch.setattr(together, "_share", lambda *_: end)
    together.join(call, 2, lambda: False)
    assert call.told() == [{"event": "failed", "reason": told, "message": "Machine 2: it has 2 cards."}]


def test_who_is_one_too_many_disturbs_nobody(call: Call) -> None:
    """A second one of a number, and one of a number that there is not, end no training that goes on."""
    assert call.take(2)
    assert together.join(call, 2, lambda: False) is None
    with pytest.raises(
        TemporaryError, match=r"There are 3 machines to train, from 0 to 2: mend nodes there, or --node"
    ):
        together.join(call, 3, lambda: False)
    assert call.told() == []


def test_a_call_is_there_while_it_lasts_and_another_is_another(state: Path, folder: Path, job: TrainJob) -> None:
    file = job.write(folder / "job.json")
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


def test_a_machine_leaves_what_is_over(folder: Path, job: TrainJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended, begun anew, or machine 0 is gone; but not where the disk is away for a moment."""
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    file = job.write(folder / "job.json")

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


def _failed(reason: str, **more: Any) -> Mapping[str, Any]:
    return {"event": "failed", "reason": reason, "message": f"Machine 9: {reason}.", **more}


SMALLER = {"batch_size": 1, "gradient_accumulation": 8}


@pytest.mark.parametrize(
    ("told", "end"),
    [
        ([(1, _failed("out-of-memory", again=SMALLER))], {"event": "done", "result": {}}),
        ([(1, _failed("crashed")), (2, _failed("out-of-memory", again=SMALLER))], {"event": "done", "result": {}}),
        ([(2, _failed("killed"))], _failed("killed")),
    ],
    ids=["memory", "memory behind a consequence of it", "killed"],
)
def test_machine_0_hears_why_it_ended_elsewhere(
    state: Path,
    folder: Path,
    job: TrainJob,
    monkeypatch: pytest.MonkeyPatch,
    told: list[tuple[int, Mapping[str, Any]]],
    end: Mapping[str, Any],
) -> None:
    """The processes here would wait for those there for ever; in smaller batches they are done at once."""
    program = state / "child.py"
    program.write_text(
        "import json, sys, time\n"
        "if json.load(open(sys.argv[1]))['settings']['batch_size'] > 1: time.sleep(3600)\n"
        "print(json.dumps({'event': 'done', 'result': {}}))\n"
    )
    monkeypatch.setattr(sys, "argv", [str(program)])

    def elsewhere() -> None:
        while not (wanted := calls(state, 1)):
            time.sleep(0.05)
        for node, event in told:
            wanted[0].tell(node, event)
            time.sleep(2)

    thread = threading.Thread(target=elsewhere, daemon=True)
    thread.start()
    three = replace(job, nodes=3)
    file = three.write(folder / "job.json")
    assert together.train_together(three, file, lambda *_, **__: None, lambda: False) == end
    thread.join(30)
    assert not thread.is_alive()


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
