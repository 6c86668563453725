"""What goes wrong in a training, really: no memory, no room, no numbers, nothing to learn from, a killed process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from audiofolders import write_side, write_table
from safetensors.torch import load_file
from torch.nn.modules.module import register_module_forward_pre_hook

from daemon.asr import families
from daemon.asr.training import REASONS, Progress, TrainingError, TrainingResult
from daemon.asr.whisper.arguments import Batching
from daemon.asr.whisper.checkpoints import need_room
from daemon.local.speech import silence, speak_corpus, wav_bytes
from daemon.local.tiny import BASE

OPTIONS = {
    "base": str(BASE),
    "device": "cpu",
    "learning_rate": 1e-3,
    "batch_size": 4,
    "gradient_accumulation": 2,
    "epochs": 2,
}
"""16 clips: 2 steps an epoch."""
CHILD = """
import json, os, subprocess, sys
from pathlib import Path
from daemon.asr import families
from daemon.asr.training import TrainingError

options, data, out, resume = json.loads(sys.argv[1])

def tell(facts):
    print(json.dumps(facts), flush=True)

def train():
    report = lambda progress: tell(progress.facts())
    where = Path(data), Path(out)
    return families.train("whisper", options, *where, report=report, stop=lambda: False, resume=resume)

try:
    tell(train().facts())
except TrainingError as error:
    tell({"reason": error.reason, "said": str(error), "left": os.listdir(f"{out}/checkpoints")})
    subprocess.run(["mount", "-o", "remount,size=60m", sys.argv[2]], check=True)
    tell(train().facts())
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    clips = speak_corpus("B", 20, seed=41)
    folder = tmp_path_factory.mktemp("data")
    write_side(folder, "train", clips[:16])
    return write_side(folder, "test", clips[16:])


def train(data: Path, out: Path, told: list[Progress] | None = None, **more: Any) -> TrainingResult:
    told = [] if told is None else told
    return families.train(
        "whisper", OPTIONS | more, data, out, report=told.append, stop=lambda: False, resume="resume" in str(out)
    )


def refused(data: Path, out: Path, **more: Any) -> TrainingError:
    with pytest.raises(TrainingError) as caught:
        train(data, out, **more)
    assert caught.value.reason in REASONS
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith((".", "?"))
    assert not (out / "model").exists()
    return caught.value


@contextmanager
def memory_for(clips: int, *, from_batch: int = 0) -> Iterator[list[int]]:
    """Let the allocator itself refuse when more clips than that are trained on at once. Yields the batches tried."""
    tried: list[int] = []

    def look(module: torch.nn.Module, given: Any) -> None:
        if isinstance(module, torch.nn.Conv1d) and module.in_channels == 80 and module.training:
            tried.append(len(given[0]))
            if tried[-1] > clips and len(tried) > from_batch:
                torch.empty(1 << 60, dtype=torch.uint8)

    handle = register_module_forward_pre_hook(look)
    try:
        yield tried
    finally:
        handle.remove()


def test_when_memory_runs_out_the_batches_are_halved_and_the_steps_stay(data: Path, tmp_path: Path) -> None:
    with memory_for(2) as tried:
        result = train(data, tmp_path / "out")
    assert (result.batch_size, result.gradient_accumulation) == (2, 4)
    assert (result.step, result.steps, result.stopped) == (4, 4, False)
    assert tried == [4, *[2] * 16]


def test_it_goes_on_from_the_newest_checkpoint_when_memory_runs_out_late(data: Path, tmp_path: Path) -> None:
    with memory_for(1, from_batch=7) as tried:
        result = train(data, tmp_path / "out", save_steps=3)
    assert (result.batch_size, result.gradient_accumulation) == (1, 8)
    assert (result.resumed_from, result.step) == (3, 4)
    assert tried == [*[4] * 8, 2, *[1] * 8]


def test_when_not_one_clip_fits_it_says_so(data: Path, tmp_path: Path) -> None:
    with memory_for(0):
        error = refused(data, tmp_path / "out")
    assert error.reason == "out-of-memory"
    assert "Not even one clip at a time fits into the memory of cpu" in str(error)


def test_smaller_batches_make_steps_as_large() -> None:
    def all_of(batching: Batching | None) -> Iterator[tuple[int, int]]:
        while batching:
            yield batching.size, batching.accumulation
            batching = batching.smaller()

    assert list(all_of(Batching(4, 2))) == [(4, 2), (2, 4), (1, 8)]
    assert list(all_of(Batching(6, 1))) == [(6, 1), (3, 2), (1, 6)]
    assert list(all_of(Batching(7, 3))) == [(7, 3), (3, 7), (1, 21)]


def test_a_training_whose_numbers_go_wrong_ends_without_a_model(data: Path, tmp_path: Path) -> None:
    error = refused(data, tmp_path / "out", learning_rate=1e30, save_steps=1)
    assert error.reason == "not-a-number"
    assert "diverged at step 2" in str(error)
    assert "lower learning rate" in str(error)
    kept = load_file(tmp_path / "out" / "checkpoints" / "checkpoint-1" / "model.safetensors")
    assert kept  # what was whole before is not taken away
    assert not (tmp_path / "out" / "checkpoints" / "checkpoint-2").exists()


@pytest.mark.parametrize(
    ("reason", "said", "more"),
    [
        ("settings", 'Training has no setting "epoch": did you mean epochs?', {"epoch": 3}),
        ("settings", "epochs is 0, and has to be more than 0", {"epochs": 0}),
        ("settings", "learning_rate is nan, and has to be more than 0", {"learning_rate": float("nan")}),
        ("settings", 'no argument "weight_decays": did you mean weight_decay?', {"arguments": {"weight_decays": 1}}),
        ("settings", "Set batch_size instead of", {"arguments": {"per_device_train_batch_size": 1}}),
        ("settings", '"report_to" is not for you to set', {"arguments": {"report_to": "wandb"}}),
        ("settings", "transformers refuses the training arguments: ", {"arguments": {"lr_scheduler_type": "zigzag"}}),
        ("base", "There is no model directory at nowhere", {"base": "./nowhere"}),
        ("base", 'Whisper knows no language "malagas": did you mean mg (malagasy)', {"language": "malagas"}),
        ("base", "This machine has no device mps", {"device": "mps"}),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_begun(
    data: Path, tmp_path: Path, reason: str, said: str, more: dict[str, Any]
) -> None:
    error = refused(data, tmp_path / "out", **more)
    assert error.reason == reason
    assert said in str(error)
    assert not (tmp_path / "out").exists()


def test_the_arguments_reach_the_trainer(data: Path, tmp_path: Path) -> None:
    result = train(data, tmp_path / "out", arguments={"max_steps": 1, "label_smoothing_factor": 0.1})
    assert (result.step, result.steps) == (1, 1)


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "train/metadata.csv is missing, or lists no clip" in str(refused(tmp_path / "empty", tmp_path / "out"))
    clips = tmp_path / "bad" / "train" / "clips"
    clips.mkdir(parents=True)
    (clips / "0.wav").write_bytes(b"no sound")
    (clips / "1.wav").write_bytes(wav_bytes(silence(1)))
    rows = [("clips/0.wav", "loha"), ("clips/1.wav", ""), ("clips/2.wav", "kibo")]
    write_table(tmp_path / "bad", "train", rows)
    error = refused(tmp_path / "bad", tmp_path / "out")
    assert error.reason == "data"
    assert "can be learned from: 1 audio-missing, 1 audio-not-audio, 1 empty-text." in str(error)


def test_one_silent_clip_without_a_held_out_side_is_a_training(tmp_path: Path) -> None:
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "0.wav").write_bytes(wav_bytes(silence(1)))
    write_table(tmp_path / "data", "train", [("0.wav", "loha")])
    result = train(tmp_path / "data", tmp_path / "out", epochs=1)
    assert (result.step, result.wer) == (1, None)


def test_room_is_asked_for_before_it_is_needed(tmp_path: Path) -> None:
    need_room(tmp_path, 1)
    with pytest.raises(TrainingError, match=r"needs \d+\.\d GB free in .*: make room, or train elsewhere") as caught:
        need_room(tmp_path, shutil.disk_usage(tmp_path).total * 2)
    assert caught.value.reason == "disk-full"


def test_a_disk_that_fills_up_keeps_the_last_whole_checkpoint(data: Path, tmp_path: Path) -> None:
    """A checkpoint of the small model takes 3.6 MB: on a disk of 6 MB the second finds no room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command, env = child(data, disk / "out", resume=True, epochs=3, save_steps=2)
    script = f'mount -t tmpfs -o size=6m tmpfs {disk} || exit 77; exec "$@"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", *command, str(disk)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("needs user namespaces, to have a small disk")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    (failed,) = (line for line in lines if "reason" in line)
    assert failed["reason"] == "disk-full"
    assert "make room and resume" in failed["said"]
    assert failed["left"] == ["checkpoint-2"]  # what the disk was filled with is gone
    assert (lines[-1]["resumed_from"], lines[-1]["step"], lines[-1]["stopped"]) == (2, 6, False)


def test_a_killed_training_goes_on_to_the_same_weights(data: Path, tmp_path: Path) -> None:
    more = {"epochs": 3, "save_steps": 1, "eval_steps": 2}
    train(data, tmp_path / "whole", **more)
    command, env = child(data, tmp_path / "resume", resume=False, **more)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if json.loads(line)["phase"] == "training" and json.loads(line)["step"] >= 4:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    result = train(data, tmp_path / "resume", **more)
    assert result.resumed_from is not None
    assert 3 <= result.resumed_from < result.step == 6
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "resume"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.skipif(find_spec("peft") is None, reason="needs the extra lora")
@pytest.mark.parametrize("more", [{}, {"gradient_checkpointing": True}])
def test_low_ranks_end_as_an_ordinary_whisper(data: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    result = train(data, tmp_path / "out", lora_rank=4, epochs=1, **more)
    old, new = load_file(BASE / "model.safetensors"), load_file(tmp_path / "out" / "model" / "model.safetensors")
    assert old.keys() == new.keys()
    changed = {name.rpartition(".")[0].rpartition(".")[2] for name in old if not torch.equal(old[name], new[name])}
    assert changed == {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}
    assert result.parameters < 298_048 / 4
    families.load("whisper", {"model": str(result.model), "device": "cpu"})


@pytest.mark.skipif(find_spec("peft") is None, reason="needs the extra lora")
def test_low_ranks_are_resumed(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "whole", lora_rank=4)
    seen: list[Progress] = []
    stopped = families.train(
        "whisper",
        OPTIONS | {"lora_rank": 4},
        data,
        tmp_path / "resume",
        report=seen.append,
        stop=lambda: any(each.step == 1 and each.phase == "training" for each in seen),
        resume=False,
    )
    assert (stopped.stopped, stopped.step) == (True, 2)
    assert train(data, tmp_path / "resume", lora_rank=4).resumed_from == 2
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "resume"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_gradient_checkpointing_is_the_same_training(data: Path, tmp_path: Path) -> None:
    """Only in other memory. Dropout is drawn again as it was."""
    for name, wanted in (("with", True), ("without", False)):
        train(data, tmp_path / name, gradient_checkpointing=wanted)
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("with", "without"))
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)
    assert json.loads((tmp_path / "with" / "model" / "config.json").read_text())["use_cache"] is False


def child(data: Path, out: Path, *, resume: bool, **more: Any) -> tuple[list[str], dict[str, str]]:
    """A process that trains: command and environment. It has no home, as some services have none."""
    options = json.dumps([OPTIONS | more, str(data), str(out), resume])
    root = str(Path(__file__).resolve().parents[2])
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return [sys.executable, "-c", CHILD, options], env | {
        "PYTHONPATH": root,
        "OMP_NUM_THREADS": "1",
        "HOME": "/proc/none",
    }
