"""A candidate and the live model over the same held-out clips, by the same code.

evidence = compare(load_live, load_candidate, clips, against=3, confidence=0.95, report=lambda done, of: None)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from daemon.asr.bootstrap import paired_interval
from daemon.asr.errors import ModelError
from daemon.asr.judging import noise
from daemon.asr.judging.evidence import ClipEvidence, Evidence, clip_evidence
from daemon.asr.judging.harm import guards, invented
from daemon.asr.judging.hearing import CandidateFailedError, ClipError, HeldOut, Progress, StoppedError, free, hear
from daemon.asr.metrics import normalise
from daemon.asr.transcriber import Draft, Transcriber, Waveform

__all__ = ["CandidateFailedError", "ClipError", "Evidence", "HeldOut", "StoppedError", "compare"]


def compare(
    load_live: Callable[[], Transcriber],
    load_candidate: Callable[[], Transcriber],
    clips: Sequence[HeldOut],
    *,
    against: int,
    confidence: float,
    anchor: Sequence[HeldOut] = (),
    report: Callable[[int, int], None],
    stop: Callable[[], bool] = lambda: False,
) -> Evidence:
    """Run the live model over everything, then the candidate; at no time are both in memory.

    `against` is the live version's number, `report` takes clips done and clips in all (of both models), `stop` is asked
    before every batch. `anchor` clips, where given, are speech that must not be forgotten; they count for no gain.

    Raises `CandidateFailedError` if the candidate does not load, fails on the clips, or computes what is no number;
    `ModelError` if that is so of the live model (it is loaded first, so what ails the machine is not blamed on the
    candidate); `ClipError` if a clip cannot be read, or if the clips hold no word; `StoppedError`; and the device's own
    error when its memory runs out.
    """
    if not any(normalise(clip.text) for clip in clips):
        raise ClipError("There is no held-out clip to judge by: correct some clips of another recording.", "data")
    steady, swelling = noise.steady(), noise.swelling()
    sounds: list[Callable[[], Waveform]] = [clip.load for clip in (*clips, *anchor)]
    sounds += [partial(_itself, wave) for wave in (*steady, *swelling)]
    progress = Progress(report, stop, total=2 * len(sounds))
    live, live_model = hear(load_live, sounds, progress, 0, blame=ModelError)
    free()
    candidate, candidate_model = hear(load_candidate, sounds, progress, len(sounds), blame=CandidateFailedError)
    free()
    ends = (len(clips), len(clips) + len(anchor), len(clips) + len(anchor) + len(steady))
    before, after = _split(live, *ends), _split(candidate, *ends)
    judged, anchored = _paired(clips, before[0], after[0]), _paired(anchor, before[1], after[1])
    return Evidence(
        against=against,
        clips=judged,
        anchor=anchored,
        gain=paired_interval(
            [clip.live.errors - clip.candidate.errors for clip in judged],
            [clip.words for clip in judged],
            [clip.recording for clip in judged],
            confidence=confidence,
        ),
        confidence=confidence,
        guards=tuple(guards(judged, anchored, invented(before[2], after[2]), confidence)),
        swelling=invented(before[3], after[3]),
        models={"live": live_model, "candidate": candidate_model},
    )


def _itself(wave: Waveform) -> Waveform:
    return wave


def _split(drafts: Sequence[Draft], *ends: int) -> list[Sequence[Draft]]:
    return [drafts[start:end] for start, end in zip((0, *ends), (*ends, len(drafts)), strict=True)]


def _paired(clips: Sequence[HeldOut], live: Sequence[Draft], candidate: Sequence[Draft]) -> tuple[ClipEvidence, ...]:
    return tuple(clip_evidence(*row) for row in zip(clips, live, candidate, strict=True))
