"""The engines behind the one interface: the same weights say the same."""

from __future__ import annotations

import importlib.util
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from daemon.asr.errors import ModelError
from daemon.asr.metrics import word_error_rate
from daemon.asr.transcriber import Draft, Transcriber, Waveform
from daemon.asr.whisper import eight_bits, engines, guards
from daemon.asr.whisper.config import GuardSettings, WhisperSettings
from daemon.asr.whisper.load import load_model, load_processor, load_transcriber, look_at_device
from daemon.asr.whisper.windows import Windows, spectrograms
from daemon.local.speech import Utterance, noise, silence, speak_corpus
from daemon.local.tiny import BASE

FAST = WhisperSettings(model=str(BASE), device="cpu", engine="ctranslate2")
PLAIN = replace(FAST, engine="transformers")
MANY = 200


@pytest.fixture(scope="module")
def clips() -> Sequence[Utterance]:
    """Half of them of the domain that the model knows."""
    return [*speak_corpus("A", MANY // 2, seed=31), *speak_corpus("B", MANY // 2, seed=32)]


@pytest.fixture(scope="module")
def plain(clips: Sequence[Utterance]) -> list[Draft]:
    return load_transcriber(PLAIN).transcribe(_audio(clips))


def _audio(clips: Sequence[Utterance]) -> list[Waveform]:
    return [clip.audio for clip in clips]


def _wer(clips: Sequence[Utterance], drafts: Sequence[Draft]) -> float:
    return word_error_rate([clip.text for clip in clips], [draft.text for draft in drafts])


def _alike(one: Sequence[Draft], other: Sequence[Draft]) -> float:
    return sum(a.text == b.text for a, b in zip(one, other, strict=True)) / len(one)


def test_in_full_precision_both_say_the_same(clips: Sequence[Utterance], plain: Sequence[Draft]) -> None:
    fast = load_transcriber(replace(FAST, dtype="float32")).transcribe(_audio(clips))
    assert _alike(plain, fast) >= 0.99
    assert abs(_wer(clips, plain) - _wer(clips, fast)) <= 0.002
    for a, b in zip(plain, fast, strict=True):
        if a.text == b.text:
            assert a.flags == b.flags
            assert a.confidence == pytest.approx(b.confidence, abs=1e-3)


def test_in_full_precision_both_say_the_same_in_short_windows(clips: Sequence[Utterance], tmp_path: Path) -> None:
    """What the model makes of windows that it was not trained in is of no matter here."""
    folder = shutil.copytree(BASE, tmp_path / "model")
    Windows((1.5, 2.0, 3.0), 0.25).write(folder)
    some = clips[::2]
    plain, fast = (
        load_transcriber(replace(each, model=str(folder), dtype="float32")).transcribe(_audio(some))
        for each in (PLAIN, FAST)
    )
    assert _alike(plain, fast) >= 0.99
    assert abs(_wer(some, plain) - _wer(some, fast)) <= 0.002


def test_in_eight_bits_a_model_says_the_same_where_it_knows_the_words(
    clips: Sequence[Utterance], plain: Sequence[Draft]
) -> None:
    """What ``auto`` takes on a CPU. Among words that it does not know some of its guesses change; its rate does not.

    On a processor without VNNI the library's own conversion is 2 points worse in either.
    """
    model = load_transcriber(FAST)
    assert model.describe()["dtype"] == "int8"
    fast = model.transcribe(_audio(clips))
    known, unknown = slice(0, MANY // 2), slice(MANY // 2, MANY)
    assert _alike(plain[known], fast[known]) >= 0.99
    assert abs(_wer(clips[known], plain[known]) - _wer(clips[known], fast[known])) <= 0.002
    assert abs(_wer(clips[unknown], plain[unknown]) - _wer(clips[unknown], fast[unknown])) <= 0.01


def test_no_sum_of_eight_bits_is_cut_off() -> None:
    """Whatever the processor of this machine would make of it."""
    from ctranslate2.converters.transformers import WhisperLoader

    with torch.no_grad():
        spec, whole = (WhisperLoader()(load_model(BASE, "base", torch.float32), _tokenizer()) for _ in range(2))
    spec.validate()
    whole.validate()
    eight_bits.quantize(spec)
    weights, plain = (each.variables() for each in (spec, whole))
    narrowed = {name: value.numpy() for name, value in weights.items() if f"{name}_scale" in weights}
    assert len(narrowed) > 20
    for name, value in narrowed.items():
        rows, scale = value.reshape(len(value), -1).astype(np.float32), weights[f"{name}_scale"].numpy()
        assert np.abs(rows).max(1).min() == np.abs(rows).max() == 64
        assert np.abs(rows / scale[:, None] - plain[name].numpy().reshape(len(value), -1)).max() <= 0.51 / scale.min()


def _tokenizer() -> Any:
    return load_processor(BASE, "base").tokenizer


@pytest.fixture(scope="module", params=["transformers", "ctranslate2"])
def engine(request: pytest.FixtureRequest) -> WhisperSettings:
    return replace(FAST, engine=request.param)


@pytest.fixture(scope="module")
def model(engine: WhisperSettings) -> Transcriber:
    return load_transcriber(engine)


def test_silence_stays_silent(model: Transcriber) -> None:
    assert [draft.text for draft in model.transcribe([silence(2), noise(2.5), silence(0.01)])] == [""] * 3


def test_a_model_is_less_sure_of_words_that_it_does_not_know(
    model: Transcriber, market: Sequence[Utterance], clinic: Sequence[Utterance]
) -> None:
    """Either engine tells; and where a correction would teach nothing, there is no doubt to tell of."""
    known, unknown = (
        [draft.uncertainty for draft in model.transcribe(_audio(clips[:20])) if draft.uncertainty]
        for clips in (market, clinic)
    )
    assert 0 < statistics.median(known) < statistics.median(unknown) < 1
    stuck = [np.tile(clip.audio, 3) for clip in market[:4]]
    assert [draft.uncertainty for draft in model.transcribe([silence(2), *stuck])] == [0.0] * 5


def test_nothing_is_nothing(model: Transcriber) -> None:
    assert model.transcribe([]) == []


def test_equal_audio_gives_equal_text_in_any_company(model: Transcriber, clips: Sequence[Utterance]) -> None:
    together = model.transcribe(_audio(clips[:24]))
    for clip, draft in zip(clips[:24], together, strict=True):
        (alone,) = model.transcribe([clip.audio])
        assert alone.text == draft.text


def test_a_model_is_heard_in_the_windows_that_it_was_trained_with(
    engine: WhisperSettings, clips: Sequence[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(BASE, tmp_path / "model")
    stock = load_transcriber(replace(engine, model=str(folder)))
    Windows((1.5, 2.0, 3.0), 0.25).write(folder)
    trained = load_transcriber(replace(engine, model=str(folder)))
    assert stock.fingerprint != trained.fingerprint
    assert (stock.describe()["windows"], trained.describe()["windows"]) == ("3 s", "1.5 to 3 s")
    for found, expected in ((stock, {300}), (trained, {150, 200, 300})):
        frames: list[int] = []
        inner = found._listener._engine.hear

        def look(features: Any, *more: Any, inner: Any = inner, frames: list[int] = frames) -> Any:
            frames.append(features.shape[-1])
            return inner(features, *more)

        monkeypatch.setattr(found._listener._engine, "hear", look)
        found.transcribe(_audio(clips[:60]))
        assert set(frames) == expected
        assert len(frames) <= 2 * len(expected) + 6  # a batch of each window at least, and not one of each clip


def test_what_goes_astray_is_tried_again_and_flagged(engine: WhisperSettings, clips: Sequence[Utterance]) -> None:
    """Every text counts as a loop for this one, so each is drawn anew; the likeliest stays where none is better."""
    never = GuardSettings(different_pairs=0.75, compression_ratio=0.0, temperatures=(0.3, 0.6))
    found = load_transcriber(replace(engine, guards=never)).transcribe(_audio(clips[:6]))
    plain = load_transcriber(replace(engine, guards=replace(never, temperatures=()))).transcribe(_audio(clips[:6]))
    assert [draft.text for draft in found] == [draft.text for draft in plain]
    assert all("repetition" in draft.flags for draft in found)


def test_a_draw_that_helps_is_kept_and_flagged(
    engine: WhisperSettings, clips: Sequence[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The likeliest words of each clip count as a loop, and no others do."""
    audio = _audio(clips[MANY // 2 : MANY // 2 + 24])
    never = replace(engine, guards=GuardSettings(temperatures=()))
    loops = {draft.text for draft in load_transcriber(never).transcribe(audio)}
    monkeypatch.setattr(guards, "repeats", lambda text, _: guards.clean(text) in loops)
    found = load_transcriber(engine).transcribe(audio)
    helped = [draft for draft in found if draft.text not in loops]
    assert helped
    assert all("low-confidence" in draft.flags and "repetition" not in draft.flags for draft in helped)
    assert all("repetition" in draft.flags for draft in found if draft.text in loops)


def test_above_zero_words_are_drawn_and_at_zero_they_are_not(
    engine: WhisperSettings, clips: Sequence[Utterance]
) -> None:
    audio = _audio(clips[MANY // 2 : MANY // 2 + 40])

    def said(*temperatures: float) -> list[list[list[int]]]:
        listener: Any = load_transcriber(engine)._listener  # type: ignore[attr-defined]
        features = spectrograms(listener._extractor, audio, 48_000)
        return [[spoken.tokens for spoken in listener._engine.hear(features, each)] for each in temperatures]

    greedy, *drawn, again = said(0.0, 0.4, 0.8, 0.0)
    assert greedy == again
    assert all(each != greedy for each in drawn)
    assert drawn[0] != drawn[1]
    assert all(tokens for each in drawn for tokens in each)
    # Whoever judges a model against its copy must not find one the better.
    assert said(0.4, 0.8) == drawn


def test_what_is_drawn_does_not_hang_on_the_company(clips: Sequence[Utterance]) -> None:
    """CTranslate2 does not promise this: its dice roll on from window to window."""
    listener: Any = load_transcriber(PLAIN)._listener  # type: ignore[attr-defined]
    features = spectrograms(listener._extractor, _audio(clips[MANY // 2 : MANY // 2 + 8]), 48_000)
    together = [spoken.tokens for spoken in listener._engine.hear(features, 0.8)]
    alone = [listener._engine.hear(features[at : at + 1], 0.8)[0].tokens for at in reversed(range(8))]
    assert alone == together[::-1]


def test_the_fastest_that_is_there_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, apple = torch.device("cpu"), torch.device("mps")
    auto = replace(FAST, engine="auto")
    assert engines.choose(auto, cpu) == ("ctranslate2", "int8")
    assert engines.choose(replace(auto, dtype="float32"), cpu) == ("ctranslate2", "float32")
    assert engines.choose(replace(auto, engine="transformers"), cpu) == ("transformers", "float32")
    assert engines.choose(auto, apple) == ("transformers", "float32")
    assert look_at_device(auto).dtype == "int8"
    with pytest.raises(ModelError, match="CTranslate2 cannot use device mps here: choose engine auto"):
        engines.choose(FAST, apple)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "daemon.asr.whisper.ctranslate2_engine.find_spec", lambda name: None if name == "ctranslate2" else find(name)
    )
    assert engines.choose(auto, cpu) == ("transformers", "float32")
    with pytest.raises(ModelError, match=r"not installed: pip install 'ambara\[fast\]', or choose engine auto"):
        load_transcriber(FAST)


def test_on_nvidia_it_takes_the_library_that_ctranslate2_was_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch for CUDA 13 brings another one, and CTranslate2 would notice at the first clip."""
    cuda = torch.device("cuda")
    monkeypatch.setattr("ctranslate2.get_supported_compute_types", lambda _: {"float32", "float16"})
    where = "daemon.asr.whisper.ctranslate2_engine._CUBLAS"
    monkeypatch.setattr(where, "libc.so.6")
    assert engines.choose(replace(FAST, engine="auto"), cuda) == ("ctranslate2", "float16")
    monkeypatch.setattr(where, "libof-no-machine.so.12")
    assert engines.choose(replace(FAST, engine="auto"), cuda) == ("transformers", "float16")
    with pytest.raises(ModelError, match=r"needs libof-no-machine\.so\.12 on this device, which is not there"):
        engines.choose(FAST, cuda)
