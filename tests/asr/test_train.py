"""A whole training on real speech: what it leaves, what it tells, and that it learned."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from audiofolders import write_side, write_table
from safetensors.torch import load_file

from daemon.asr import families
from daemon.asr.error_rates import ErrorRates
from daemon.asr.metrics import word_error_rate
from daemon.asr.training import Progress, TrainingError, TrainingResult
from daemon.local.speech import Utterance, noise, speak_corpus, wav_bytes
from daemon.local.tiny import BASE

OPTIONS = {"base": str(BASE), "device": "cpu", "learning_rate": 1e-3, "batch_size": 16, "gradient_accumulation": 1}


@dataclass(frozen=True)
class Trained:
    data: Path
    out: Path
    result: TrainingResult
    told: list[Progress]
    held_out: Sequence[Utterance]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Fifty corrections of the clinic, eighty steps; among them some that cannot be learned from."""
    torch.set_num_threads(1)
    data, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("out") / "new"
    corrections = speak_corpus("B", 50, seed=21)
    held_out = speak_corpus("B", 40, seed=22, exclude=[clip.text for clip in corrections])
    write_side(data, "train", corrections)
    write_side(data, "test", held_out)
    (data / "train" / "clips" / "bad.wav").write_bytes(b"RIFF")
    (data / "train" / "clips" / "long.wav").write_bytes(wav_bytes(noise(3.2)))
    good = [(f"clips/{number}.wav", clip.text) for number, clip in enumerate(corrections)]
    odd = [("clips/bad.wav", "loha"), ("clips/long.wav", "kibo"), ("clips/0.wav", " "), ("clips/1.wav", "a" * 60)]
    write_table(data, "train", [*odd, *good])
    told: list[Progress] = []
    result = families.train(
        "whisper",
        {**OPTIONS, "epochs": 20, "eval_clips": 12},
        data,
        out,
        report=told.append,
        stop=lambda: False,
        resume=False,
    )
    return Trained(data, out, result, told, held_out)


def test_it_learned(trained: Trained) -> None:
    """62 % before, about 25 % after so few steps."""
    before, after = (wer(model, trained.held_out) for model in (BASE, trained.out / "model"))
    assert before > 0.5
    assert after < before - 0.2


def test_what_is_left_is_a_model_and_nothing_else(trained: Trained) -> None:
    assert sorted(path.name for path in trained.out.iterdir()) == ["model", "result.json"]
    kinds = {path.suffix for path in (trained.out / "model").iterdir()}
    assert kinds - {".txt"} == {".json", ".safetensors"}  # transformers 4 also writes merges.txt
    for name in ("config.json", "generation_config.json"):
        saved, base = (json.loads((model / name).read_text()) for model in (trained.out / "model", BASE))
        assert saved.keys() ^ base.keys() <= {"num_hidden_layers", "suppress_tokens", "tie_word_embeddings"}
        both = saved.keys() & base.keys() - {"transformers_version"}  # who saved it differs
        assert {key: saved[key] for key in both} == {key: base[key] for key in both}


def test_the_same_parameters_have_other_values(trained: Trained) -> None:
    old, new = load_file(BASE / "model.safetensors"), load_file(trained.out / "model" / "model.safetensors")
    assert old.keys() == new.keys()
    assert not any(torch.equal(old[name], new[name]) for name in old if "embed_positions" not in name)


def test_the_result_says_what_was_done(trained: Trained) -> None:
    result = trained.result
    assert (result.step, result.steps, result.clips, result.stopped) == (80, 80, 50, False)
    assert result.left_out == {"audio-not-audio": 1, "too-long": 1, "empty-text": 1, "text-too-long": 1}
    assert result.model == trained.out / "model"
    assert (result.device, result.precision, result.batch_size, result.resumed_from) == ("cpu", "float32", 16, None)
    assert result.parameters in {298_048, 288_448}  # transformers 4 leaves the encoder's positions as they are
    assert result.seconds == pytest.approx(50 * 1.8, rel=0.3)
    assert result.loss is not None
    assert result.wer is not None
    assert result.loss < 0.3
    assert result.wer < 0.5
    assert json.loads(json.dumps(result.facts()))["model"] == str(result.model)


def test_it_told_where_it_was(trained: Trained) -> None:
    phases = [each.phase for each in trained.told]
    assert list(dict.fromkeys(phases)) == ["features", "training", "evaluating", "saving"]
    features = [each for each in trained.told if each.phase == "features"]
    assert features[-1].step == features[-1].steps == 54 + 12
    training = [each for each in trained.told if each.phase == "training"]
    assert sorted({each.step for each in training}) == list(range(81))
    assert all(each.steps == 80 for each in training)
    assert training[-1].loss is not None
    assert training[2].loss is not None
    assert training[-1].loss < training[2].loss / 5
    assert training[10].seconds_left is not None
    assert training[10].seconds_left > 0
    assert training[40].wer is None  # it is tried after 50 steps, and at the end
    assert training[60].wer is not None
    json.dumps([each.facts() for each in trained.told], allow_nan=False)


def test_a_finished_training_is_not_begun_again(trained: Trained) -> None:
    told: list[Progress] = []

    def again(*, resume: bool) -> TrainingResult:
        return families.train(
            "whisper", OPTIONS, trained.data, trained.out, report=told.append, stop=lambda: False, resume=resume
        )

    assert again(resume=True) == trained.result
    with pytest.raises(TrainingError, match="holds a model already") as caught:
        again(resume=False)
    assert caught.value.reason == "exists"
    assert told == []


def test_a_model_from_elsewhere_is_left_alone(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path / "model")
    with pytest.raises(TrainingError, match="no training here made"):
        families.train(
            "whisper", OPTIONS, trained.data, tmp_path, report=lambda _: None, stop=lambda: False, resume=True
        )


def test_a_plan_is_what_then_happens(trained: Trained, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    told: list[Progress] = []
    plan = families.plan("whisper", {**OPTIONS, "epochs": 20}, trained.data, report=told.append)
    result = trained.result
    assert (plan.clips, plan.steps, plan.left_out) == (result.clips, result.steps, result.left_out)
    assert (plan.device, plan.precision, plan.held_out) == ("cpu", "float32", 40)
    assert plan.seconds == pytest.approx(result.seconds)
    assert (told[-1].step, told[-1].steps) == (54, 54)
    assert sorted(tmp_path.iterdir()) == before


def test_error_rates_are_a_metric_that_needs_no_network() -> None:
    rates = ErrorRates(keep_in_memory=True).compute(
        predictions=["Vary, roa!", "telo"], references=["vary roa", "loha telo"]
    )
    assert rates == {"wer": 0.25, "wer_raw": 0.75, "cer": pytest.approx(5 / 17)}


def wer(model: Path, clips: Sequence[Utterance]) -> float:
    transcriber = families.load("whisper", {"model": str(model), "device": "cpu"})
    drafts = transcriber.transcribe([clip.audio for clip in clips])
    return word_error_rate([clip.text for clip in clips], [draft.text for draft in drafts])
