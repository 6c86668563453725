"""The benchmark for graphics cards, tried out on the CPU: what it counts is so, and every way has the same to do."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import gpu
import numpy as np
import pytest
import torch
import work
from card import Batches
from gpu_drafting import babble
from peers import with_ours, with_transformers
from shapes import SHAPES, make
from torch.utils.flop_counter import FlopCounterMode
from transformers import WhisperForConditionalGeneration

from daemon.asr.transcriber import SAMPLE_RATE
from daemon.asr.whisper.config import GuardSettings
from daemon.asr.whisper.guards import is_silent
from daemon.asr.whisper.windows import Windows, resizable

ROOT = Path(__file__).parent.parent
MICRO = SHAPES["micro"]
TRY = [
    *("--device", "cpu", "--shape", "micro", "--seconds", "3", "--clips", "3", "--batch", "2", "--loop", "1"),
    *("--runs", "1", "--alone", "1", "--learned", "2", "--at-once", "1"),
]
Row = Mapping[str, str]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("micro", tmp_path_factory.mktemp("micro"))


@pytest.fixture(scope="module")
def tables() -> list[list[Row]]:
    """What the whole of it prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert gpu.main(gpu.options(TRY)) == 0, said.getvalue()
    return read(said.getvalue())


def read(said: str) -> list[list[Row]]:
    """The tables in a text of Markdown."""
    found: list[list[Row]] = []
    head: Sequence[str] = ()
    for before, line in pairwise(("", *said.splitlines())):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|---"):
            head = [cell.strip() for cell in before.strip("|").split("|")]
            found.append([])
        elif line.startswith("|") and found and before.startswith("|"):
            found[-1].append(dict(zip(head, cells, strict=True)))
    return found


def percent(cell: str) -> float:
    return float(cell.removesuffix("%")) / 100


def test_each_way_of_drafting_says_the_same_of_the_same(tables: list[list[Row]]) -> None:
    drafting, *_ = tables
    assert len(drafting) == 7
    for row in drafting:
        assert row["same words"] == ("1 of 1" if "loop" in row["way"] else "3 of 3")
        assert float(row["audio seconds a second"]) > 0
        assert row["memory"] == ""  # nobody counts it on the CPU
        assert 0 < percent(row["of the bandwidth"]) < 1
        if "transformers" in row["way"]:  # the others may compute in smaller numbers than what they are measured by
            assert 0 < percent(row["of the matrices"]) < 1
    assert drafting[0]["of the loop"] == "1.0x"


def test_each_way_of_training_is_measured(tables: list[list[Row]]) -> None:
    *_, training = tables
    assert [row["way"].partition(":")[0] for row in training] == ["the usual", "ours", "ours"]
    for row in training:
        assert float(row["clips a second"]) > 0
        assert percent(row["of the matrices"]) > 0
    assert training[0]["of the usual"] == "1.0x"


def test_drafting_needs_little_to_be_installed() -> None:
    missing = (
        *("accelerate", "apscheduler", "ctranslate2", "datasets", "espeakng_loader", "evaluate", "faster_whisper"),
        *("jiwer", "psycopg", "pydantic", "rapidfuzz", "realtime", "soundfile", "soxr", "starlette", "structlog"),
        *("supabase", "uvicorn"),
    )
    script = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({missing})); "
        f"sys.argv = ['gpu.py', *{TRY}, '--only', 'drafting', '--clips', '1']; "
        "runpy.run_path('benchmarks/gpu.py', run_name='__main__')"
    )
    path = os.pathsep.join((str(ROOT), str(ROOT / "benchmarks")))
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    drafting, _ = read(done.stdout)
    told = [row["audio seconds a second"] for row in drafting]
    assert sum(each.endswith("is not installed") for each in told) == 3
    assert sum(row["same words"] == "1 of 1" for row in drafting) == 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_so() -> None:
    with pytest.raises(SystemExit, match="finds no graphics card here"):
        gpu.main(gpu.options([]))


def test_what_fine_tuning_needs_is_missed_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SystemExit, match="Fine-tuning needs datasets: install that, or ask for --only drafting"):
        gpu.main(gpu.options(TRY))


def test_of_the_largest_shape_less_is_asked() -> None:
    small, large = gpu.options([]), gpu.options(["--shape", "large-v3"])
    assert large.clips < small.clips
    assert gpu.options(["--shape", "large-v3", "--clips", "9"]).clips == 9
    assert large.batch == small.batch


def test_clips_that_do_not_fill_the_steps_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.options(["--learned", "5", "--at-once", "2"])
    assert "multiple of --at-once" in capsys.readouterr().err


@pytest.mark.parametrize("frames", [3000, 1000])
def test_the_operations_are_those_that_pytorch_counts(model: Path, frames: int) -> None:
    heard = resizable(WhisperForConditionalGeneration.from_pretrained(model, attn_implementation="eager"))
    features = torch.zeros(2, MICRO.mels, frames)
    tokens = torch.zeros(2, work.PROMPT + work.SAID - 1, dtype=torch.long)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        heard(input_features=features, decoder_input_ids=tokens, use_cache=False)
    assert work.training(MICRO, [(2, frames)]).flops == pytest.approx(3 * counted.get_total_flops(), rel=0.01)


def test_a_pass_reads_the_weights_of_the_decoder_once(model: Path) -> None:
    weights = WhisperForConditionalGeneration.from_pretrained(model)
    matrices = {
        name: each.numel()
        for name, each in weights.model.named_parameters()
        if each.dim() > 1 and "positions" not in name
    }
    decoder = sum(count for name, count in matrices.items() if name.startswith("decoder"))
    windows = sum(count for name, count in matrices.items() if "encoder_attn.k" in name or "encoder_attn.v" in name)
    encoder = sum(count for name, count in matrices.items() if name.startswith("encoder"))
    once, twice = (work.drafting(MICRO, [(rows, 2000)], 4).bytes for rows in (1, 2))
    assert 2 * once - twice == 4 * (encoder + windows + work.SAID * (decoder - windows))  # what rows share


def test_what_batches_a_model_is_given_is_seen(model: Path) -> None:
    waves = babble(3, 4.0)
    with Batches() as seen:
        with_transformers(model, 2)(waves)
    assert seen.seen == [(2, 3000), (1, 3000)]
    windows = Windows.right_sized(30.0)
    with Batches() as seen:
        with_ours(model, 2, "transformers", "float32", windows)(waves)
    assert sum(rows for rows, _ in seen.seen) == 3
    own = [windows.samples(len(wave)) // 160 for wave in waves]
    assert sum(rows * frames for rows, frames in seen.seen) == sum(own)
    assert torch.nn.modules.module._global_forward_pre_hooks == {}


def test_shares_are_of_what_could_have_been_done_meanwhile() -> None:
    assert work.Work(flops=10.0, bytes=6.0).share(2.0, flops=20.0, bandwidth=4.0) == (0.25, 0.75)


def test_the_sounds_pass_the_silence_gate_and_are_as_long_as_asked() -> None:
    waves = babble(8, 8.0)
    assert not any(is_silent(wave, GuardSettings()) for wave in waves)
    assert all(4 * SAMPLE_RATE <= len(wave) <= 12 * SAMPLE_RATE for wave in waves)
    assert all(np.abs(wave).max() < 1 for wave in waves)
