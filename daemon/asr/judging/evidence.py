"""What a comparison leaves behind: both texts of every clip, the rates, the guards. Everything in it becomes JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from daemon.asr.bootstrap import Interval
from daemon.asr.judging.hearing import HeldOut
from daemon.asr.metrics import character_error_rate, raw_word_error_rate, word_error_rate, word_errors
from daemon.asr.transcriber import Draft


@dataclass(frozen=True, slots=True)
class Heard:
    """One model's draft of a clip."""

    text: str
    flags: tuple[str, ...]
    errors: int
    """Word edits, normalised."""


@dataclass(frozen=True, slots=True)
class ClipEvidence:
    """A clip, and what both made of it."""

    clip_id: str
    recording: str
    kind: str
    reference: str
    words: int
    """Of the reference, normalised."""
    live: Heard
    candidate: Heard


@dataclass(frozen=True, slots=True)
class Rates:
    """Of one model over some clips, pooled."""

    wer: float
    """Normalised, as the gate takes it."""
    wer_raw: float
    """As written, with case and punctuation."""
    cer: float
    """Characters, normalised."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Of both models over some clips."""

    clips: int
    recordings: int
    words: int
    live: Rates
    candidate: Rates


@dataclass(frozen=True, slots=True)
class GuardFigure:
    """A figure, lower is better, that must not become worse by more than `tolerance`."""

    name: str
    live: float
    candidate: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Invented:
    """Sounds without speech, and how many of them came back as words without a warning."""

    sounds: int
    live: int
    candidate: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why a verdict is what it is."""

    against: int
    """The version that was live."""
    clips: tuple[ClipEvidence, ...]
    anchor: tuple[ClipEvidence, ...]
    gain: Interval
    confidence: float
    guards: tuple[GuardFigure, ...]
    swelling: Invented
    """In noise that comes and goes. Reported, and no guard: stock models invent words there, too."""
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """``live`` and ``candidate`` -> the facts of the model as it heard: its engine, dtype and windows among them."""

    def totals(self) -> dict[str, Totals]:
        """Of ``all`` clips, of each kind, and of the ``anchor`` set where there is one."""
        groups: dict[str, list[ClipEvidence]] = {"all": list(self.clips)}
        for clip in self.clips:
            groups.setdefault(clip.kind, []).append(clip)
        if self.anchor:
            groups["anchor"] = list(self.anchor)
        return {name: totals(clips) for name, clips in groups.items()}

    def comparison(self) -> dict[str, Any]:
        """What the verdict is made of: the keys of `handlers.snapshot.Comparison`, in plain JSON."""
        found = totals(self.clips)
        return {
            "against": self.against,
            "clips": found.clips,
            "recordings": found.recordings,
            "words": found.words,
            "live_wer": found.live.wer,
            "candidate_wer": found.candidate.wer,
            "gain_low": self.gain.low,
            "gain_high": self.gain.high,
            "confidence": self.confidence,
            "guards": [asdict(guard) for guard in self.guards],
        }

    def to_json(self) -> dict[str, Any]:
        """Comparison, totals and every clip: plain dicts, lists, strings and finite numbers."""
        return {
            "comparison": self.comparison(),
            "gain": asdict(self.gain),
            "totals": {name: asdict(found) for name, found in self.totals().items()},
            "swelling_noise": asdict(self.swelling),
            "models": {side: dict(facts) for side, facts in self.models.items()},
            "clips": [_plain(clip) for clip in self.clips],
            "anchor": [_plain(clip) for clip in self.anchor],
        }


def clip_evidence(clip: HeldOut, live: Draft, candidate: Draft) -> ClipEvidence:
    """Count one clip's errors on both sides."""
    (live_errors, words), (errors, _) = word_errors(clip.text, live.text), word_errors(clip.text, candidate.text)
    return ClipEvidence(
        clip_id=clip.clip_id,
        recording=clip.recording,
        kind=clip.kind,
        reference=clip.text,
        words=words,
        live=Heard(live.text, live.flags, live_errors),
        candidate=Heard(candidate.text, candidate.flags, errors),
    )


def totals(clips: Sequence[ClipEvidence]) -> Totals:
    """Pool some clips."""
    references = [clip.reference for clip in clips]
    return Totals(
        clips=len(clips),
        recordings=len({clip.recording for clip in clips}),
        words=sum(clip.words for clip in clips),
        live=_rates(references, [clip.live.text for clip in clips]),
        candidate=_rates(references, [clip.candidate.text for clip in clips]),
    )


def _rates(references: Sequence[str], texts: Sequence[str]) -> Rates:
    return Rates(
        wer=word_error_rate(references, texts),
        wer_raw=raw_word_error_rate(references, texts),
        cer=character_error_rate(references, texts),
    )


def _plain(clip: ClipEvidence) -> dict[str, Any]:
    plain = asdict(clip)
    for side in ("live", "candidate"):
        plain[side]["flags"] = list(plain[side]["flags"])
    return plain
