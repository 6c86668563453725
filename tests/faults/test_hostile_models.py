"""Model folders, versions and checkpoints with code in them: it never runs, and what needs it is refused at once."""

from __future__ import annotations

import json
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audiofolders import write_side
from daemon_process import ambara, write_config
from fault_record import Fault
from hostile_models import REFUSED, WEIGHTS, Canary, everything_beside, spoilt

from daemon.asr import families
from daemon.asr.errors import ModelError
from daemon.asr.training import TrainingError
from daemon.asr.whisper.checkpoints import MANIFEST, seal
from daemon.errors import PermanentError
from daemon.learning.manifest import MANIFEST as VERSION_MANIFEST
from daemon.learning.manifest import stamp
from daemon.learning.registry import Registry
from daemon.local.speech import speak_corpus
from daemon.local.stack import LocalStack
from daemon.local.tiny import BASE

REFUSED_S = 2.0
"""Of a processor's time: what else the machine does is not the daemon's."""


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    """One that is known to sing."""
    made = Canary(tmp_path / "canary")
    pickle.loads(made.pickled)
    assert made.sang()
    exec(made.code)
    assert made.sang()
    return made


class Trials:
    """What was tried, and what came of it."""

    def __init__(self, canary: Canary) -> None:
        self._canary = canary
        self.ran: list[str] = []
        self.opened: list[str] = []
        self.slow: list[tuple[str, float]] = []

    def refuse(self, name: str, attempt: Callable[[], object], *errors: type[Exception]) -> None:
        """`attempt` has to end with one of these errors, soon."""
        began = time.process_time()
        try:
            attempt()
        except errors:
            took = time.process_time() - began
            self.slow += [(name, took)] if took > REFUSED_S else []
        else:
            self.opened.append(name)
        self.ran += [name] if self._canary.sang() else []

    def hold(self, fault: Fault) -> None:
        fault.holds("the canary never runs", self.ran)
        fault.holds("refused", self.opened)
        fault.holds("refused <= 2 s", self.slow)


def load(model: Path) -> None:
    families.load("whisper", {"model": str(model), "device": "cpu"})


@pytest.mark.fault("F31", "pickle-base")
def test_a_base_model_with_code(
    fault: Fault, canary: Canary, tmp_path: Path, local_stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, and by the commands that a person gives it to, with "y" at hand for whoever asks."""
    fault.injected(f"{len(REFUSED)} model folders that need code, 1 that only brings it")
    load(BASE)  # what is imported late is imported now
    train(BASE, tmp_path, epochs=0.1)
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    trials = Trials(canary)
    models = [spoilt(tmp_path, spoil, canary) for spoil in REFUSED]
    for model in models:
        name = model.parent.name
        trials.refuse(f"load {name}", lambda model=model: load(model), ModelError)
        trials.refuse(f"train {name}", lambda model=model: train(model, tmp_path), TrainingError)
    trials.hold(fault)
    load(spoilt(tmp_path, everything_beside, canary))
    fault.holds("what lies beside stays shut", ["ran"] if canary.sang() else [])

    answers = {}
    for model in models[: fault.size(full=len(models), short=1)]:
        folder = tmp_path / "commands" / model.parent.name
        folder.mkdir(parents=True)
        write_config(folder, model={"base": str(model)})
        data = write_side(folder / "data", "train", speak_corpus("A", 1, seed=1))
        training = ["train", "--data", str(data), "--output", str(folder / "out"), "--base-model", str(model)]
        for command in (["run"], training):
            done = ambara(local_stack, folder, *command)
            plain = done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
            answers[command[0], model.parent.name] = (done.returncode, plain, canary.sang(), done.stderr[:300])
    wrong = {of: told for of, told in answers.items() if not told[0] or not told[1] or told[2]}
    fault.holds("commands say it in a sentence", wrong.items())
    fault.observe(f"{len(answers)} commands")


def train(model: Path, folder: Path, **more: Any) -> None:
    data = folder / "data"
    if not data.exists():
        write_side(data, "train", speak_corpus("B", 8, seed=31))
        write_side(data, "test", speak_corpus("B", 2, seed=32))
    options = {"base": str(model), "device": "cpu", "batch_size": 4, "gradient_accumulation": 1}
    options |= {"save_steps": 2, "eval_steps": 100, "epochs": more.pop("epochs", 4)}
    stop = more.pop("stop", lambda: False)
    out = more.pop("out", folder / f"out-{model.parent.name}")
    families.train("whisper", options, data, out, report=more.pop("report", lambda _: None), stop=stop, resume=True)


@pytest.mark.fault("F31", "pickle-version")
def test_a_version_whose_folder_was_changed(fault: Fault, canary: Canary, tmp_path: Path) -> None:
    """By somebody who can write a fitting manifest, too."""
    load(BASE)
    registry = Registry(tmp_path / "models")
    published = registry.claim(1, "owner")
    shutil.copytree(BASE, published / "model")
    registry.publish(1, {})
    load(registry.check(1))
    trials = Trials(canary)
    changes: dict[str, Callable[[Path], object]] = {
        "a pickle beside": lambda model: (model / "pytorch_model.bin").write_bytes(canary.pickled),
        "training arguments": lambda model: (model / "training_args.bin").write_bytes(canary.pickled),
        "an array": lambda model: (model / "words.npy").write_bytes(canary.pickled),
        "a module": lambda model: (model / "evil.py").write_text(canary.code),
        "a pickle for weights": lambda model: canary.save(model / WEIGHTS),
        "weights by a link": lambda model: _linked(model / WEIGHTS, tmp_path, canary),
        "an index": lambda model: (model / f"{WEIGHTS}.index.json").write_text('{"weight_map": {"a": "../evil.bin"}}'),
        "the folder by a link": lambda model: _linked(model, tmp_path, canary),
    }
    fault.injected(f"{len(changes)} changes to a version's folder, each with the old manifest and with a fitting one")
    for number, (name, change) in enumerate(changes.items(), start=2):
        for fitting in (False, True):
            folder = registry.folder(number * 2 + fitting)
            shutil.copytree(published, folder)
            manifest = json.loads((folder / VERSION_MANIFEST).read_text()) | {"version": number * 2 + fitting}
            change(folder / "model")
            if fitting:
                files = {str(path.relative_to(folder)) for path in folder.glob("model/*") if path.is_file()}
                manifest["files"] = {file: stamp(folder / file) for file in (*files, "training.json")}
            (folder / VERSION_MANIFEST).write_text(json.dumps(manifest))
            version = number * 2 + fitting
            attempt = lambda version=version: load(registry.check(version))  # noqa: E731
            trials.refuse(f"{name}, {'fitting' if fitting else 'old'}", attempt, PermanentError, ModelError)
    trials.hold(fault)


def _linked(path: Path, folder: Path, canary: Canary) -> None:
    """Move it out and leave a link, behind which something else may come."""
    target = folder / f"moved-{path.name}-{len(list(folder.iterdir()))}"
    shutil.move(path, target)
    path.symlink_to(target)
    if target.is_file():
        canary.save(target)


@pytest.mark.fault("F31", "pickle-checkpoint")
def test_a_checkpoint_that_was_changed(fault: Fault, canary: Canary, tmp_path: Path) -> None:
    """With its manifest made to fit. The trainer's own files are pickles, which are opened as plain data only."""
    out, steps = tmp_path / "begun", []
    train(
        BASE,
        tmp_path,
        out=out,
        report=lambda progress: steps.append(progress.phase == "training" and progress.step >= 3),
        stop=lambda: any(steps),
    )
    (newest, *_) = sorted((out / "checkpoints").glob("checkpoint-*"), reverse=True)
    key = json.loads((newest / MANIFEST).read_text())["training"]
    names = ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"]
    fault.injected(f"a canary for {', '.join(names)}; a checkpoint behind a link, and one that anybody may write")
    ran, gone_on = [], []
    for name in names[: fault.size(full=4, short=2)]:
        changed = Path(shutil.copytree(out, tmp_path / f"changed-{name}"))
        checkpoint = changed / "checkpoints" / newest.name
        assert (checkpoint / name).exists()
        (checkpoint / name).write_bytes(canary.pickled)
        seal(checkpoint, key)
        try:
            train(BASE, tmp_path, out=changed)
        except TrainingError as error:
            gone_on += [] if error.reason == "checkpoint-unsafe" else [(name, str(error))]
        else:
            gone_on += [] if name == "training_args.bin" else [name]  # which nothing ever opens
        ran += [name] if canary.sang() else []
    trials = Trials(canary)
    for name, place in (("checkpoints", "checkpoints"), ("one", f"checkpoints/{newest.name}")):
        linked = Path(shutil.copytree(out, tmp_path / f"linked-{name}"))
        _linked(linked / place, tmp_path, canary)
        trials.refuse(f"{name} behind a link", lambda linked=linked: train(BASE, tmp_path, out=linked), TrainingError)
        open_ = Path(shutil.copytree(out, tmp_path / f"open-{name}"))
        (open_ / place).chmod(0o777)
        trials.refuse(f"{name} for anybody", lambda open_=open_: train(BASE, tmp_path, out=open_), TrainingError)
    fault.holds("the canary never runs", ran + trials.ran)
    fault.holds("refused", gone_on + trials.opened)
