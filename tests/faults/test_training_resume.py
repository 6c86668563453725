"""A real training is killed at random steps and its newest checkpoint cut off: it ends with the very same weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
import training_storm_whisper as whisper
from audiofolders import write_side
from fault_record import Fault
from safetensors.torch import load_file
from training_storm import ROOT

from daemon.local.speech import speak_corpus

KILLS, CUTS = 10, 5
MANIFEST = "manifest.json"


@pytest.mark.long
@pytest.mark.fault("F23", "train-resume")
def test_it_ends_with_the_same_weights(fault: Fault, tmp_path: Path) -> None:
    fault.injected(f"{KILLS} x kill -9 at a random moment; the newest checkpoint cut off after {CUTS} of them")
    clips = speak_corpus("B", 22, seed=31)
    data = tmp_path / "data"
    write_side(data, "train", clips[:20])
    write_side(data, "test", clips[20:])
    cuts = set(fault.random.sample(range(KILLS), CUTS))
    out, wrong, expected = tmp_path / "killed", [], 0
    began: list[int] = []
    trainings = Trainings(data)
    for number in range(KILLS):
        after, pause = fault.random.randint(2, 5), fault.random.uniform(0, 0.15)
        began.append(trainings.killed(out, expected + after, pause))
        if began[-1] != expected:
            wrong.append(f"went on from {began[-1]}, and the newest whole checkpoint was of step {expected}")
        whole = _whole(out)
        if number in cuts and whole:
            _cut(fault, whole.pop())
        expected = _step(whole[-1]) if whole else 0
    fault.observe(f"went on from the steps {began}, then {expected}")
    with fault.healing():
        last = trainings.finished(out)
    uninterrupted = trainings.finished(tmp_path / "whole")
    trainings.close()
    fault.holds("resumed from the newest whole checkpoint", wrong)
    fault.holds("final step equal", [] if last["step"] == uninterrupted["step"] else [last])
    fault.holds("resumed to the end", [] if last["resumed_from"] == (expected or None) else [last, expected])
    one, other = (load_file(each / "model" / "model.safetensors") for each in (out, tmp_path / "whole"))
    fault.holds("the same weights", [name for name in other if not torch.equal(one[name], other[name])])


class Trainings:
    """One training after another, each in a process of its own."""

    def __init__(self, data: Path) -> None:
        self._data = data
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [sys.executable, whisper.__file__],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def killed(self, out: Path, step: int, pause: float) -> int:
        """Train until this step, and a moment longer. Returns the step at which it began."""
        first, pid = None, 0
        for told in self._told(out):
            pid = told.get("pid", pid)
            if told.get("phase") == "training":
                first = told["step"] if first is None else first
                if told["step"] >= step and pid:
                    time.sleep(pause)
                    os.kill(pid, signal.SIGKILL)
                    pid = 0
            elif "ended" in told:
                assert told["ended"] == -signal.SIGKILL, "it had ended before it was killed"
        assert first is not None
        return int(first)

    def finished(self, out: Path) -> dict[str, Any]:
        """Train to the end. Returns what came of it."""
        *_, facts, ended = self._told(out)
        assert ended == {"ended": 0}
        return facts

    def close(self) -> None:
        self._server.kill()
        self._server.communicate()

    def _told(self, out: Path) -> Iterator[dict[str, Any]]:
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps([str(self._data), str(out)]) + "\n")
        self._server.stdin.flush()
        for line in self._server.stdout:
            told = json.loads(line)
            yield told
            if "ended" in told:
                return


def _whole(out: Path) -> list[Path]:
    """Checkpoints whose every file is as their manifest says, by age; in words of the test's own."""
    found = []
    for checkpoint in sorted((out / "checkpoints").glob("checkpoint-*"), key=_step):
        try:
            files = json.loads((checkpoint / MANIFEST).read_bytes())["files"]
            hashes = {name: sha256((checkpoint / name).read_bytes()).hexdigest() for name in files}
        except (OSError, ValueError):
            continue
        if hashes == {name: facts["sha256"] for name, facts in files.items()}:
            found.append(checkpoint)
    return found


def _cut(fault: Fault, checkpoint: Path) -> None:
    """Leave the beginning of one of its files."""
    file = fault.random.choice(sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.stat().st_size))
    os.truncate(file, fault.random.randrange(file.stat().st_size))


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("-")[2])
