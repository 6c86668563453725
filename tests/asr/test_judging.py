"""The comparison with real models: equal, crippled, broken; and what it leaves behind."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from daemon.asr.errors import ModelError
from daemon.asr.families import load
from daemon.asr.judging import CandidateFailedError, Evidence, HeldOut, StoppedError, compare
from daemon.asr.metrics import character_error_rate, raw_word_error_rate, word_error_rate
from daemon.asr.transcriber import Draft, Transcriber, Waveform
from daemon.local.speech import Utterance
from daemon.local.tiny import BASE
from handlers.policy import PromotionPolicy
from handlers.promotion import Outcome, judge
from handlers.snapshot import Comparison, Guard

RULES = PromotionPolicy()
Loader = Callable[[], Transcriber]


def whisper(directory: Path = BASE) -> Loader:
    return partial(load, "whisper", {"model": str(directory), "device": "cpu"})


def altered(directory: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    """A copy of the model with other weights in its decoder."""
    shutil.copytree(BASE, directory)
    weights = load_file(directory / "model.safetensors")
    for name, weight in weights.items():
        if "decoder" in name:
            weights[name] = change(weight).contiguous()
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def noisy(weight: torch.Tensor) -> torch.Tensor:
    return weight + 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, market: Sequence[Utterance]) -> list[HeldOut]:
    """Twenty-four clips of three recordings, one of them read aloud."""
    folder = tmp_path_factory.mktemp("held-out")
    return [_stored(folder, at, clip, f"sermon-{at % 3}") for at, clip in enumerate(market[:24])]


def _stored(folder: Path, at: int, clip: Utterance, recording: str) -> HeldOut:
    path = folder / f"{at}.wav"
    soundfile.write(path, clip.audio, 16_000, subtype="PCM_16")
    kind = "reading" if recording == "sermon-2" else "extraction"
    return HeldOut(f"clip-{at}", recording, kind, clip.text.capitalize() + ".", path)


def compared(live: Loader, candidate: Loader, clips: Sequence[HeldOut], **options: Any) -> Evidence:
    options = {"against": 3, "confidence": 0.95, "report": lambda *_: None} | options
    return compare(live, candidate, clips, **options)


def verdict(evidence: Evidence) -> Outcome:
    found = evidence.comparison()
    guards = tuple(Guard(**guard) for guard in found.pop("guards"))
    return judge(Comparison(**found, guards=guards), RULES).outcome


@pytest.fixture(scope="module")
def crippled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return altered(tmp_path_factory.mktemp("models") / "crippled", noisy)


@pytest.fixture(scope="module")
def ruined(clips: list[HeldOut], crippled: Path) -> Evidence:
    torch.set_num_threads(1)
    return compared(whisper(), whisper(crippled), clips, anchor=clips[:6])


def test_a_model_is_not_better_than_itself(clips: list[HeldOut]) -> None:
    evidence = compared(whisper(), whisper(), clips, anchor=clips[:3])
    assert verdict(evidence) is Outcome.NOT_BETTER
    assert (evidence.gain.gain, evidence.gain.low, evidence.gain.high) == (0, 0, 0)
    assert all(clip.live == clip.candidate for clip in (*evidence.clips, *evidence.anchor))
    assert all(guard.live == guard.candidate for guard in evidence.guards)


def test_a_crippled_model_is_worse_and_its_original_is_better(ruined: Evidence, clips: list[HeldOut]) -> None:
    assert ruined.gain.high < 0
    assert verdict(ruined) is Outcome.WORSE
    crippled, sound = ruined.totals()["all"].candidate.wer, ruined.totals()["all"].live.wer
    assert sound < 0.15
    assert crippled > 0.5
    broken = {guard.name for guard in ruined.guards if guard.candidate > guard.live + guard.tolerance}
    assert "word error rate of the anchor set" in broken
    assert any(name.startswith("word error rate of the worst recording (sermon-") for name in broken)


def test_an_obvious_gain_on_three_recordings_is_promoted(crippled: Path, clips: list[HeldOut]) -> None:
    evidence = compared(whisper(crippled), whisper(), clips)
    assert verdict(evidence) is Outcome.BETTER
    assert 0 < evidence.gain.low < evidence.gain.gain < evidence.gain.high


def test_the_evidence_is_json_and_says_what_was_heard(ruined: Evidence, clips: list[HeldOut]) -> None:
    plain = json.loads(json.dumps(ruined.to_json(), allow_nan=False))
    assert plain == ruined.to_json()
    assert [(c["clip_id"], c["recording"], c["kind"], c["reference"]) for c in plain["clips"]] == [
        (c.clip_id, c.recording, c.kind, c.text) for c in clips
    ]
    references = [clip.text for clip in clips]
    for side in ("live", "candidate"):
        texts = [clip[side]["text"] for clip in plain["clips"]]
        rates = plain["totals"]["all"][side]
        assert rates["wer"] == pytest.approx(word_error_rate(references, texts))
        assert rates["wer_raw"] == pytest.approx(raw_word_error_rate(references, texts))
        assert rates["cer"] == pytest.approx(character_error_rate(references, texts))
        assert rates["wer_raw"] > rates["wer"]  # capitals and full stops
        errors = sum(clip[side]["errors"] for clip in plain["clips"])
        assert rates["wer"] == pytest.approx(errors / plain["totals"]["all"]["words"])
        assert plain["comparison"][f"{side}_wer"] == rates["wer"]
    assert {name: found["clips"] for name, found in plain["totals"].items()} == {
        "all": 24,
        "extraction": 16,
        "reading": 8,
        "anchor": 6,
    }
    assert plain["comparison"]["recordings"] == 3
    assert plain["comparison"]["against"] == 3
    assert set(plain["comparison"]) == set(Comparison.__dataclass_fields__)


def test_one_model_at_a_time_and_every_clip_is_reported(clips: list[HeldOut]) -> None:
    order: list[str] = []
    alive: list[int] = []
    steps: list[tuple[int, int]] = []

    def loading(name: str) -> Transcriber:
        order.append(name)
        alive.append(Parrot.alive)
        return Parrot("manao ahoana")

    compared(
        partial(loading, "live"),
        partial(loading, "candidate"),
        clips[:20],
        report=lambda done, total: steps.append((done, total)),
    )
    assert order == ["live", "candidate"]
    assert alive == [0, 0]
    done, totals = zip(*steps, strict=True)
    assert list(done) == sorted(done)
    assert set(totals) == {done[-1]}
    assert done[-1] == 2 * (20 + 9 + 4)  # silence and steady noise; noise that swells


def test_stopping_ends_between_batches(clips: list[HeldOut]) -> None:
    answers = iter([False, True])
    parrot = Parrot("x")
    with pytest.raises(StoppedError):
        compared(lambda: parrot, whisper(), clips, stop=lambda: next(answers))
    assert parrot.heard == 32


def test_weights_that_are_not_numbers_are_the_candidates_fault(tmp_path: Path, clips: list[HeldOut]) -> None:
    leaked = altered(tmp_path / "nan", lambda weight: weight.fill_(math.nan))
    with pytest.raises(CandidateFailedError, match="not numbers"):
        compared(whisper(), whisper(leaked), clips[:4])
    with pytest.raises(ModelError) as caught:
        compared(whisper(leaked), whisper(), clips[:4])
    assert not isinstance(caught.value, CandidateFailedError)


def test_weights_that_overflow_while_hearing_are_caught(tmp_path: Path, clips: list[HeldOut]) -> None:
    """Each weight is a number, and what is reckoned from them is none: it must not count as a silent model."""
    huge = altered(tmp_path / "huge", lambda weight: weight * 1e30)
    with pytest.raises(CandidateFailedError, match=r"not numbers|fails on held-out clips"):
        compared(whisper(), whisper(huge), clips[:4])
    for confidence in (math.nan, -math.inf):
        with pytest.raises(CandidateFailedError, match="parrot computes values that are not numbers"):
            compared(lambda: Parrot("x"), lambda value=confidence: Parrot("x", value), clips[:4])


def test_a_machine_without_room_is_nobodys_fault(clips: list[HeldOut]) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        compared(lambda: Parrot("x"), lambda: Breaking(torch.OutOfMemoryError("CUDA out of memory")), clips)
    with pytest.raises(CandidateFailedError, match="Breaking fails on held-out clips: IndexError: 448"):
        compared(lambda: Parrot("x"), lambda: Breaking(IndexError("448")), clips)


def test_a_clip_that_cannot_be_read_is_not_the_models_fault(tmp_path: Path, clips: list[HeldOut]) -> None:
    noise, slow = tmp_path / "noise.wav", tmp_path / "slow.wav"
    noise.write_bytes(b"RIFF no sound at all")
    soundfile.write(slow, np.zeros(800, dtype=np.float32), 8_000)
    for path, message in ((tmp_path / "gone.wav", "cannot be read"), (noise, "cannot be read"), (slow, "16000 Hz")):
        bad = HeldOut("clip-x", "r", "extraction", "teny", path)
        with pytest.raises(ModelError, match=f"clip-x .*{message}") as caught:
            compared(lambda: Parrot("x"), lambda: Parrot("x"), [*clips[:2], bad])
        assert not isinstance(caught.value, CandidateFailedError)


def test_no_words_no_verdict(clips: list[HeldOut]) -> None:
    wordless = HeldOut("clip-x", "r", "extraction", " ... ", clips[0].path)
    for nothing in ([], [wordless]):
        with pytest.raises(ModelError, match="no held-out clip to judge by"):
            compared(whisper(), whisper(), nothing)


class Parrot(Transcriber):
    """Says the same whatever it hears: another family, in three lines."""

    alive = 0
    name = fingerprint = "parrot"
    window_s = 30.0

    def __init__(self, text: str, confidence: float = -0.1) -> None:
        self.text = text
        self.confidence = confidence
        self.heard = 0
        Parrot.alive += 1

    def __del__(self) -> None:
        Parrot.alive -= 1

    def transcribe(self, batch: Sequence[Waveform]) -> list[Draft]:
        self.heard += len(batch)
        return [Draft(self.text, self.confidence) for _ in batch]


class Breaking(Transcriber):
    """Loads, and does not hear."""

    name = fingerprint = "Breaking"
    window_s = 30.0

    def __init__(self, error: Exception) -> None:
        self.error = error

    def transcribe(self, batch: Sequence[Waveform]) -> list[Draft]:
        raise self.error if batch else AssertionError


@pytest.fixture(autouse=True)
def _no_parrot_left() -> None:
    Parrot.alive = 0
