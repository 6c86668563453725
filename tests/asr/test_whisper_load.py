"""What a model directory may be, and the one sentence that everything else gets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from daemon.asr.errors import ModelError
from daemon.asr.transcriber import Draft
from daemon.asr.whisper.config import WhisperSettings
from daemon.asr.whisper.load import load_transcriber
from daemon.local.speech import Utterance
from daemon.local.tiny import BASE


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the small model to spoil."""
    return Path(shutil.copytree(BASE, tmp_path / "model"))


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def pickled(model: Path) -> None:
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()


def cut_short(model: Path) -> None:
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[: len(weights) // 2])


def without_a_layer(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    del weights["model.decoder.layers.1.fc1.weight"]
    save_file(weights, model / "model.safetensors", {"format": "pt"})


def not_a_number(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights["model.encoder.conv1.bias"][3] = torch.nan
    save_file(weights, model / "model.safetensors", {"format": "pt"})


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda m: (m / "config.json").unlink(), "is not a model: its directory holds no config.json"),
    "broken config": (lambda m: (m / "config.json").write_text("{"), "config.json of .* cannot be read"),
    "config of no object": (lambda m: (m / "config.json").write_text("[]"), "not a Whisper"),
    "another family": (
        lambda m: edit(m / "config.json", lambda c: c.update(model_type="wav2vec2")),
        'is not a Whisper: its config.json says model_type "wav2vec2"',
    ),
    "no weights": (lambda m: (m / "model.safetensors").unlink(), "holds no weights: model.safetensors is missing"),
    "pickle only": (pickled, "only as pytorch_model.bin, a pickle that could run code: save it again as safetensors"),
    "no tokenizer": (lambda m: (m / "tokenizer.json").unlink(), "holds no tokenizer"),
    "broken tokenizer": (lambda m: (m / "tokenizer.json").write_text("{}"), "tokenizer or feature extractor .* read"),
    "no feature extractor": (lambda m: (m / "processor_config.json").unlink(), "holds no feature extractor"),
    "half a download": (cut_short, "weights of .* cannot be read: copy the model again"),
    "a missing layer": (without_a_layer, r"weights of .* lack model\.decoder\.layers\.1\.fc1\.weight"),
    "exploded training": (not_a_number, "not numbers: its training went wrong"),
    "another shape": (
        lambda m: edit(m / "config.json", lambda c: c.update(d_model=32)),
        "weights of .* cannot be read",
    ),
    "no languages": (
        lambda m: edit(m / "generation_config.json", lambda c: c.pop("lang_to_id")),
        "generation_config.json of .* has no table of languages",
    ),
    "English only": (
        lambda m: edit(m / "generation_config.json", lambda c: c.update(is_multilingual=False)),
        "knows English only and cannot transcribe mg: choose a multilingual Whisper",
    ),
    "strange window": (
        lambda m: edit(m / "processor_config.json", lambda c: c["feature_extractor"].update(chunk_length=30)),
        "hears 30 s and its encoder 3 s: they belong to different models",
    ),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_spoiled_directory_is_refused_in_one_sentence(model: Path, what: str) -> None:
    spoil, message = SPOILED[what]
    spoil(model)
    with pytest.raises(ModelError, match=message) as refusal:
        load_transcriber(WhisperSettings(model=str(model), device="cpu"))
    assert "\n" not in str(refusal.value)


def test_what_would_be_executed_is_never_opened(model: Path) -> None:
    """A pickle beside the safetensors, and code that the configuration points to, stay untouched."""
    (model / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    (model / "evil.py").write_text("raise SystemExit('executed')")
    edit(model / "config.json", lambda c: c.update(auto_map={"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}))
    load_transcriber(WhisperSettings(model=str(model), device="cpu"))


def test_what_transformers_4_saved_is_opened(
    model: Path, market: Sequence[Utterance], market_drafts: Sequence[Draft]
) -> None:
    """The carried model is as 5 saves them; `make matrix` opens both with both."""
    extractor: dict[str, Any] = json.loads((model / "processor_config.json").read_text())
    (model / "processor_config.json").unlink()
    (model / "preprocessor_config.json").write_text(json.dumps(extractor.pop("feature_extractor") | extractor))
    edit(
        model / "tokenizer_config.json",
        lambda c: c.update(additional_special_tokens=c.pop("extra_special_tokens"), extra_special_tokens={}),
    )
    (draft,) = load_transcriber(WhisperSettings(model=str(model), device="cpu")).transcribe([market[0].audio])
    assert draft.text == market_drafts[0].text


@pytest.mark.parametrize("name", ["./models/x", "/nowhere/at/all", "~/no-such-model", "a/b/c", "tests/x"])
def test_a_missing_directory_is_said_plainly(name: str) -> None:
    with pytest.raises(ModelError, match=r"There is no model directory at .*(x|all|no-such-model|c)\."):
        load_transcriber(WhisperSettings(model=name))


def test_a_file_is_no_directory() -> None:
    with pytest.raises(ModelError, match="is a file: name the directory"):
        load_transcriber(WhisperSettings(model=str(BASE / "config.json")))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("openai/whisper-small", "hub cannot be reached and openai/whisper-small is not in its cache: go online once"),
        ("not a name!", 'shows no model "not a name!": check the name'),
    ],
)
def test_the_hub_out_of_reach(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=message):
        load_transcriber(WhisperSettings(model=name))


@pytest.mark.parametrize(
    ("language", "message"),
    [
        ("malagasi", r"did you mean malagasy|mg \(malagasy\)"),
        ("mgg", r"mg \(malagasy\)"),
        ("yue", r"tokenizer has no language yue \(cantonese\)"),
        ("1234567", "give a code such as mg or en"),
    ],
)
def test_an_unknown_language_names_near_ones(language: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_transcriber(WhisperSettings(model=str(BASE), language=language, device="cpu"))


@pytest.mark.parametrize("language", ["mg", "Malagasy", "<|mg|>", " MG "])
def test_a_language_may_be_written_in_several_ways(language: str) -> None:
    loaded = load_transcriber(WhisperSettings(model=str(BASE), language=language, device="cpu"))
    assert loaded.describe()["language"] == "mg"


@pytest.mark.skipif(torch.cuda.is_available(), reason="has what the test must miss")
def test_an_absent_device_is_said_plainly() -> None:
    with pytest.raises(ModelError, match=r"no device cuda that PyTorch can use: choose auto, or .*cpu"):
        load_transcriber(WhisperSettings(model=str(BASE), device="cuda"))


def test_legacy_settings_of_stock_models_do_no_harm(
    model: Path, market: Sequence[Utterance], market_drafts: Sequence[Draft]
) -> None:
    """Hub models carry beams, sampling, lengths and forced prompts in their generation settings."""
    edit(
        model / "generation_config.json",
        lambda c: c.update(num_beams=3, do_sample=True, max_length=448, forced_decoder_ids=[[1, None], [2, 258]]),
    )
    drafts = load_transcriber(WhisperSettings(model=str(model), device="cpu")).transcribe([market[0].audio])
    assert drafts[0].text == market_drafts[0].text


def test_the_fingerprint_follows_what_shapes_a_draft_and_nothing_else(model: Path) -> None:
    settings = WhisperSettings(model=str(model), device="cpu")
    first = load_transcriber(settings).fingerprint
    assert first == load_transcriber(replace(settings, model=str(BASE))).fingerprint
    (model / "README.md").write_text("words")
    assert load_transcriber(replace(settings, batch_size=2)).fingerprint == first
    seen = {first, load_transcriber(replace(settings, language="en")).fingerprint}
    seen.add(load_transcriber(replace(settings, task="translate")).fingerprint)
    edit(model / "generation_config.json", lambda c: c.update(begin_suppress_tokens=[1]))
    seen.add(load_transcriber(settings).fingerprint)
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-4] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    seen.add(load_transcriber(settings).fingerprint)
    assert len(seen) == 5
