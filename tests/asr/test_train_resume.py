"""Interrupted trainings: the next attempt goes on from the newest whole checkpoint, to the same weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from audiofolders import write_side
from safetensors.torch import load_file

from daemon.asr import families
from daemon.asr.training import Progress, TrainingError, TrainingResult
from daemon.asr.whisper.checkpoints import MANIFEST, newest_whole
from daemon.local.speech import speak_corpus
from daemon.local.tiny import BASE

STEPS = 12
OPTIONS = {
    "base": str(BASE),
    "device": "cpu",
    "learning_rate": 1e-3,
    "batch_size": 4,
    "gradient_accumulation": 2,
    "epochs": 4,
    "save_steps": 4,
    "eval_steps": 5,
    "eval_clips": 2,
}
"""20 clips, 3 steps an epoch, 12 in all. Dropout and masks are on: chance has to be resumed, too."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    clips = speak_corpus("B", 24, seed=31)
    folder = tmp_path_factory.mktemp("data")
    write_side(folder, "train", clips[:20])
    return write_side(folder, "test", clips[20:])


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What comes of it when nothing interrupts it."""
    out = tmp_path_factory.mktemp("whole")
    result = train(data, out, lambda _: False)
    assert (result.step, result.stopped) == (STEPS, False)
    return out


def train(
    data: Path, out: Path, stop_at: Callable[[Progress], bool], *, resume: bool = False, **more: object
) -> TrainingResult:
    """Train, and ask to stop once a report is such."""
    seen: list[bool] = []
    return families.train(
        "whisper",
        {**OPTIONS, **more},
        data,
        out,
        report=lambda progress: seen.append(stop_at(progress)),
        stop=lambda: any(seen),
        resume=resume,
    )


def after(step: int) -> Callable[[Progress], bool]:
    return lambda progress: progress.phase == "training" and progress.step >= step


def trying(progress: Progress) -> bool:
    return progress.phase == "evaluating"


def never(_: Progress) -> bool:
    return False


def checkpoints(out: Path) -> list[int]:
    return sorted(int(path.name.partition("-")[2]) for path in (out / "checkpoints").glob("checkpoint-*"))


def same_weights(one: Path, other: Path) -> bool:
    left, right = (load_file(out / "model" / "model.safetensors") for out in (one, other))
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("step", [2, 4, 10])
def test_a_stopped_training_ends_with_the_same_weights(data: Path, whole: Path, tmp_path: Path, step: int) -> None:
    """Between two epochs, within one, and while held-out clips are tried."""
    stopped = train(data, tmp_path, after(step))
    assert stopped.stopped
    assert stopped.model is None
    assert step <= stopped.step == checkpoints(tmp_path)[-1] <= step + 1
    assert not (tmp_path / "model").exists()
    result = train(data, tmp_path, never, resume=True)
    assert (result.resumed_from, result.step, result.stopped) == (stopped.step, STEPS, False)
    assert same_weights(tmp_path, whole)
    told = json.loads((whole / "result.json").read_text())
    assert (result.loss, result.wer) == (pytest.approx(told["loss"]), told["wer"])
    assert not (tmp_path / "checkpoints").exists()


def test_a_stop_while_held_out_clips_are_tried_is_heard(data: Path, whole: Path, tmp_path: Path) -> None:
    """That can take minutes where there is no GPU."""
    stopped = train(data, tmp_path, trying)
    assert (stopped.stopped, stopped.step, stopped.wer) == (True, 5, None)
    assert train(data, tmp_path, never, resume=True).step == STEPS
    assert same_weights(tmp_path, whole)


def test_a_stop_after_the_last_step_comes_too_late(data: Path, whole: Path, tmp_path: Path) -> None:
    """All that is left is to save the model; the last look at held-out clips is cut short."""
    result = train(data, tmp_path, lambda progress: progress.phase == "evaluating" and progress.step == STEPS)
    assert (result.stopped, result.step) == (False, STEPS)
    assert same_weights(tmp_path, whole)


def test_a_stop_before_the_first_step(data: Path, whole: Path, tmp_path: Path) -> None:
    stopped = train(data, tmp_path, lambda progress: progress.phase == "features")
    assert (stopped.stopped, stopped.step, stopped.model) == (True, 0, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints"]
    train(data, tmp_path, never, resume=True)
    assert same_weights(tmp_path, whole)


def cut(checkpoint: Path) -> None:
    weights = (checkpoint / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(weights[: len(weights) // 2])


def flip(checkpoint: Path) -> None:
    state = bytearray((checkpoint / "optimizer.pt").read_bytes())
    state[len(state) // 2] ^= 1
    (checkpoint / "optimizer.pt").write_bytes(state)


SPOILED: dict[str, Callable[[Path], object]] = {
    "weights cut off": cut,
    "a bit of the optimiser": flip,
    "no manifest": lambda checkpoint: (checkpoint / MANIFEST).unlink(),
    "half a manifest": lambda checkpoint: (checkpoint / MANIFEST).write_text('{"training": "'),
    "a file is missing": lambda checkpoint: (checkpoint / "rng_state.pth").unlink(),
    "empty": lambda checkpoint: [file.unlink() for file in checkpoint.iterdir()],
}


@pytest.fixture(scope="module")
def interrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("interrupted")
    train(data, out, after(9))
    assert checkpoints(out) == [8, 10]
    return out


@pytest.mark.parametrize("damage", SPOILED)
def test_a_checkpoint_that_is_not_whole_is_passed_over(interrupted: Path, tmp_path: Path, damage: str) -> None:
    out = Path(shutil.copytree(interrupted, tmp_path / "out"))
    training = json.loads((out / "checkpoints" / "checkpoint-8" / MANIFEST).read_text())["training"]
    SPOILED[damage](out / "checkpoints" / "checkpoint-10")
    assert newest_whole(out / "checkpoints", training) == out / "checkpoints" / "checkpoint-8"
    assert checkpoints(out) == [8]


def test_a_damaged_training_ends_with_the_same_weights(
    data: Path, whole: Path, interrupted: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(interrupted, tmp_path / "out"))
    cut(out / "checkpoints" / "checkpoint-10")
    result = train(data, out, never, resume=True)
    assert (result.resumed_from, result.step) == (8, STEPS)
    assert same_weights(out, whole)


def test_with_no_whole_checkpoint_it_begins_anew(data: Path, whole: Path, interrupted: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(interrupted, tmp_path / "out"))
    for checkpoint in (out / "checkpoints").iterdir():
        (checkpoint / MANIFEST).unlink(missing_ok=True)
    result = train(data, out, never, resume=True)
    assert (result.resumed_from, result.step) == (None, STEPS)
    assert same_weights(out, whole)


def test_checkpoints_are_for_their_owner_alone(interrupted: Path) -> None:
    """Some of their files are pickles."""
    assert (interrupted / "checkpoints").stat().st_mode & 0o777 == 0o700


def test_only_two_checkpoints_are_kept(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path, after(9), save_steps=2)
    assert checkpoints(tmp_path) == [8, 10]


@pytest.mark.parametrize("changed", ["settings", "words", "base"])
def test_checkpoints_of_another_training_are_not_gone_on_from(
    data: Path, interrupted: Path, tmp_path: Path, changed: str
) -> None:
    out = Path(shutil.copytree(interrupted, tmp_path / "out"))
    other = Path(shutil.copytree(data, tmp_path / "data"))
    more: dict[str, object] = {}
    match changed:
        case "settings":
            more["epochs"] = 5
        case "words":
            table = other / "train" / "metadata.csv"
            table.write_text(table.read_text() + "clips/0.wav,telo\n")
        case "base":
            shutil.copytree(BASE, tmp_path / "base")
            config = json.loads((tmp_path / "base" / "config.json").read_text())
            (tmp_path / "base" / "config.json").write_text(json.dumps(config | {"dropout": 0.2}))
            more["base"] = str(tmp_path / "base")
    with pytest.raises(TrainingError, match="of other data or other settings") as caught:
        train(other, out, never, resume=True, **more)
    assert caught.value.reason == "other-training"
    assert checkpoints(out) == [8, 10]


def test_an_unfinished_training_is_not_overwritten(data: Path, interrupted: Path) -> None:
    with pytest.raises(TrainingError, match="checkpoints of an unfinished training: resume it"):
        train(data, interrupted, never)
    assert checkpoints(interrupted) == [8, 10]


def test_another_seed_is_another_training(data: Path, whole: Path, tmp_path: Path) -> None:
    """Else equal weights would prove little."""
    train(data, tmp_path, never, seed=1)
    assert not same_weights(tmp_path, whole)
