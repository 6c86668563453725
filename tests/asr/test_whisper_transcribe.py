"""The small Whisper on real speech: does it hear, does it keep silent, is its confidence what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration

from daemon.asr.metrics import word_error_rate
from daemon.asr.transcriber import Draft, Transcriber
from daemon.asr.whisper import listener
from daemon.asr.whisper.config import GuardSettings, WhisperSettings
from daemon.asr.whisper.load import load_transcriber
from daemon.asr.whisper.majors import open_processor
from daemon.local.speech import Utterance, concatenate, noise, silence
from daemon.local.tiny import BASE

SETTINGS = WhisperSettings(model=str(BASE), device="cpu", engine="transformers")


def texts(drafts: Sequence[Draft]) -> list[str]:
    return [draft.text for draft in drafts]


def words_of(clips: Sequence[Utterance]) -> list[str]:
    return [clip.text for clip in clips]


def test_it_hears_what_it_was_trained_on_and_stumbles_over_the_clinic(
    transcriber: Transcriber,
    market: Sequence[Utterance],
    clinic: Sequence[Utterance],
    market_drafts: Sequence[Draft],
) -> None:
    known = word_error_rate(words_of(market), texts(market_drafts))
    unknown = word_error_rate(words_of(clinic), texts(transcriber.transcribe([clip.audio for clip in clinic])))
    assert known < 0.10
    assert 0.3 < unknown < 1.0
    assert sum(bool(draft.flags) for draft in market_drafts) <= 1


def test_a_batch_is_as_good_as_one_by_one(
    transcriber: Transcriber, market: Sequence[Utterance], market_drafts: Sequence[Draft]
) -> None:
    """Lengths from one second to three share a batch; padding must not leak from one to another."""
    for clip, draft in zip(market[:12], market_drafts, strict=False):
        (alone,) = transcriber.transcribe([clip.audio])
        assert alone.text == draft.text
        assert alone.confidence == pytest.approx(draft.confidence, abs=1e-4)


def test_long_recordings_are_cut_heard_and_stitched(transcriber: Transcriber, market: Sequence[Utterance]) -> None:
    """Recordings of about 12 s, heard through a window of 3 s."""
    groups = [market[at : at + 6] for at in range(0, 36, 6)]
    drafts = transcriber.transcribe([concatenate([clip.audio for clip in group]) for group in groups])
    assert word_error_rate([" ".join(words_of(group)) for group in groups], texts(drafts)) < 0.2
    assert all("chunked" in draft.flags and "silence" not in draft.flags for draft in drafts)


def test_silence_and_steady_noise_give_an_empty_draft(transcriber: Transcriber, market: Sequence[Utterance]) -> None:
    speech = market[0].audio
    dead = transcriber.transcribe([silence(2), noise(2.5), noise(8), silence(0.01)])
    assert [draft.text for draft in dead] == [""] * 4
    assert [draft.flags for draft in dead] == [("silence",), ("silence",), ("silence", "chunked"), ("silence",)]
    assert {draft.confidence for draft in dead} == {None}
    alone, surrounded = transcriber.transcribe([speech, np.concatenate([silence(6), speech, silence(7)])])
    assert surrounded.text == alone.text
    assert surrounded.flags == ("chunked",)


def test_confidence_is_the_mean_log_probability_of_what_was_said(
    market: Sequence[Utterance], market_drafts: Sequence[Draft], transcriber: Transcriber, clinic: Sequence[Utterance]
) -> None:
    """Against an independent computation: the text is forced through the decoder in one pass."""
    processor: Any = open_processor(BASE)
    model: Any = WhisperForConditionalGeneration.from_pretrained(BASE).eval()
    processor.tokenizer.set_prefix_tokens(language="mg", task="transcribe", predict_timestamps=False)
    pairs = [*zip(market[:5], market_drafts, strict=False)]
    pairs += zip(clinic[:5], transcriber.transcribe([clip.audio for clip in clinic[:5]]), strict=True)
    control = [*model.generation_config.suppress_tokens]
    for clip, draft in pairs:
        ids = torch.tensor([processor.tokenizer(draft.text).input_ids])
        features = processor.feature_extractor(clip.audio, sampling_rate=16_000, return_tensors="pt").input_features
        with torch.no_grad():
            logits = model(input_features=features, decoder_input_ids=ids[:, :-1]).logits[0, 3:]
        logits[:, control] = -torch.inf
        logits[0, model.generation_config.begin_suppress_tokens] = -torch.inf
        forced = logits.log_softmax(-1).gather(1, ids[0, 4:, None]).mean()
        assert draft.confidence == pytest.approx(float(forced), abs=1e-4)


def test_doubt_is_flagged(market: Sequence[Utterance], market_drafts: Sequence[Draft]) -> None:
    sure = max(draft.confidence for draft in market_drafts[:8] if draft.confidence is not None)
    wary = load_transcriber(replace(SETTINGS, guards=GuardSettings(low_log_probability=sure - 1e-6)))
    drafts = wary.transcribe([clip.audio for clip in market[:8]])
    assert [draft.flags for draft in drafts].count(("low-confidence",)) == 7
    assert texts(drafts) == texts(market_drafts[:8])


def test_words_on_a_sound_that_is_its_own_copy_are_flagged(
    transcriber: Transcriber, market: Sequence[Utterance], market_drafts: Sequence[Draft]
) -> None:
    """A sentence from a stuck buffer: the model is sure of itself, and its text need not repeat."""
    stuck = transcriber.transcribe([np.tile(clip.audio, 3) for clip in market[:12]])
    assert all("low-confidence" in draft.flags for draft in stuck)
    assert min(draft.confidence for draft in stuck if draft.confidence is not None) > -0.5
    assert not any("low-confidence" in draft.flags for draft in market_drafts[:12])


@pytest.mark.parametrize(
    ("probability", "log_probability", "blanked"), [(-1.0, 0.1, True), (1.0, 0.1, False), (-1.0, -99.0, False)]
)
def test_the_no_speech_rule_needs_both_its_halves(
    market: Sequence[Utterance], probability: float, log_probability: float, blanked: bool
) -> None:
    guards = GuardSettings(no_speech_probability=probability, no_speech_log_probability=log_probability)
    (draft,) = load_transcriber(replace(SETTINGS, guards=guards)).transcribe([market[0].audio])
    assert (draft == Draft("", None, ("silence",))) == blanked


def test_no_speech_is_what_the_model_would_say_before_the_language(market: Sequence[Utterance]) -> None:
    transcriber = load_transcriber(SETTINGS)
    (heard,) = transcriber._listener.hear([market[0].audio])
    processor: Any = open_processor(BASE)
    model: Any = WhisperForConditionalGeneration.from_pretrained(BASE).eval()
    start, no_speech = processor.tokenizer.convert_tokens_to_ids(["<|startoftranscript|>", "<|nospeech|>"])
    features = processor.feature_extractor(market[0].audio, sampling_rate=16_000, return_tensors="pt").input_features
    with torch.no_grad():
        logits = model(input_features=features, decoder_input_ids=torch.tensor([[start]])).logits
    assert heard.no_speech == pytest.approx(float(logits[0, 0].softmax(-1)[no_speech]), rel=1e-3)


def test_a_decoder_that_runs_full_is_flagged(market: Sequence[Utterance], monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for six bytes only."""
    transcriber = load_transcriber(SETTINGS)
    monkeypatch.setattr(transcriber._listener._engine, "_room", 6)
    (draft,) = transcriber.transcribe([market[0].audio])
    assert draft.flags == ("truncated",)
    assert 0 < len(draft.text) <= 6
    assert market[0].text.startswith(draft.text)


def test_a_model_that_says_nothing_heard_silence(market: Sequence[Utterance]) -> None:
    """Every byte is suppressed, so the end token is all that remains."""
    transcriber = load_transcriber(SETTINGS)
    generation = transcriber._listener._engine._model.generation_config
    generation.suppress_tokens = [token for token in range(363) if token != generation.eos_token_id]
    generation.begin_suppress_tokens = None
    assert transcriber.transcribe([market[0].audio]) == [Draft("", None, ("silence",))]


class _SmallDevice:
    """Stands before the encoder and asks the CPU's allocator for an absurd block when a batch is too large."""

    def __init__(self, fits: int) -> None:
        self.fits = fits
        self.sizes: list[int] = []

    def __call__(self, _module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.sizes.append(len(inputs[0]))
        if len(inputs[0]) > self.fits:
            torch.empty(2**55, dtype=torch.uint8)


def test_a_batch_that_does_not_fit_is_halved(
    market: Sequence[Utterance], market_drafts: Sequence[Draft], monkeypatch: pytest.MonkeyPatch
) -> None:
    transcriber = load_transcriber(SETTINGS)
    device = _SmallDevice(fits=3)
    transcriber._listener._engine._model.get_encoder().register_forward_pre_hook(device)
    drafts = transcriber.transcribe([clip.audio for clip in market[:10]])
    assert texts(drafts) == texts(market_drafts[:10])
    assert device.sizes == [10, 4, 2, 2, 2, 2, 2]  # of 16 that would be taken, at most half of what did not fit
    device.sizes.clear()
    transcriber.transcribe([clip.audio for clip in market[:4]])
    assert device.sizes == [2, 2], "the device is as small as before"
    device.sizes.clear()
    monkeypatch.setattr(listener, "_SMALLER_S", 0.0)
    device.fits = 1
    transcriber.transcribe([clip.audio for clip in market[:2]])
    device.fits = 4
    transcriber.transcribe([clip.audio for clip in market[:4]])
    assert device.sizes == [2, 1, 1, 4], "that is long ago: it has room again"
    device.fits = 0
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        transcriber.transcribe([market[0].audio] * 2)


def test_other_failures_of_the_device_are_not_taken_for_a_lack_of_memory(market: Sequence[Utterance]) -> None:
    transcriber = load_transcriber(SETTINGS)
    calls = []

    def fail(_module: torch.nn.Module, _inputs: tuple[torch.Tensor, ...]) -> None:
        calls.append(1)
        raise RuntimeError("device-side assert triggered")

    transcriber._listener._engine._model.get_encoder().register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="device-side assert"):
        transcriber.transcribe([market[0].audio] * 4)
    with pytest.raises(RuntimeError, match="device-side assert"):
        transcriber.warm_up()
    assert len(calls) == 2
