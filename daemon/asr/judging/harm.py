"""What a lower word error rate may hide: invented words, loops, empty drafts, one recording ruined, old speech lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from daemon.asr.bootstrap import student
from daemon.asr.judging.evidence import ClipEvidence, GuardFigure, Heard, Invented, totals
from daemon.asr.metrics import normalise
from daemon.asr.transcriber import Draft

ONE_MORE = 1.5
"""Clips: one more than the live model is let pass, two are not."""
CHANCE = 1.64
"""Standard deviations, 95 % one-sided: of clips on which the models differ, that many sway by chance alone."""
LEAST_CLIPS, LEAST_WORDS = 5, 30
"""A recording with fewer says too little by itself."""
RECORDING_TOLERANCE = 0.05
ANCHOR_TOLERANCE = 0.01
"""Absolute word error rate."""

_NO_WARNING = {"chunked"}
"""Flags that say how a draft was made and not that it may be wrong."""


def invented(live: Sequence[Draft], candidate: Sequence[Draft]) -> Invented:
    """How many sounds without speech came back as words without a warning."""
    return Invented(len(live), sum(map(_invents, live)), sum(map(_invents, candidate)))


def guards(
    clips: Sequence[ClipEvidence], anchor: Sequence[ClipEvidence], nothing: Invented, confidence: float
) -> Iterator[GuardFigure]:
    """The figures that must not become worse. `nothing` is what was made of silence and steady noise."""
    sounds = nothing.sounds
    yield GuardFigure(
        "invented words on silence and noise",
        nothing.live / sounds,
        nothing.candidate / sounds,
        ONE_MORE / sounds,
    )
    yield _share("drafts that loop", [("repetition" in c.live.flags, "repetition" in c.candidate.flags) for c in clips])
    yield _share(
        "empty drafts where a person heard words",
        [(_empty(c.live), _empty(c.candidate)) for c in clips if c.words],
    )
    yield from _worst_recording(clips, confidence)
    if anchor:
        found = totals(anchor)
        yield GuardFigure("word error rate of the anchor set", found.live.wer, found.candidate.wer, ANCHOR_TOLERANCE)


def _share(name: str, pairs: Sequence[tuple[bool, bool]]) -> GuardFigure:
    """A share of clips. More of them than chance explains, and more than one, is harm (McNemar's test, roughly)."""
    count = max(1, len(pairs))
    differ = sum(live != candidate for live, candidate in pairs)
    return GuardFigure(
        name,
        sum(live for live, _ in pairs) / count,
        sum(candidate for _, candidate in pairs) / count,
        max(ONE_MORE, CHANCE * differ**0.5) / count,
    )


def _worst_recording(clips: Sequence[ClipEvidence], confidence: float) -> Iterator[GuardFigure]:
    """The recording that lost most, measured by what it may lose by chance, where any is long enough to tell."""
    recordings: dict[str, list[ClipEvidence]] = {}
    for clip in clips:
        recordings.setdefault(clip.recording, []).append(clip)
    telling = {
        name: found
        for name, found in recordings.items()
        if len(found) >= LEAST_CLIPS and sum(clip.words for clip in found) >= LEAST_WORDS
    }
    # The worst of many looks bad by chance: the doubt that is allowed is shared among them.
    figures = [_recording(name, found, (1 - confidence) / len(telling)) for name, found in telling.items()]
    if figures:
        yield max(figures, key=lambda figure: figure.candidate - figure.live - figure.tolerance)


def _recording(name: str, clips: Sequence[ClipEvidence], doubt: float) -> GuardFigure:
    words = np.array([clip.words for clip in clips], dtype=np.float64)
    live = np.array([clip.live.errors for clip in clips], dtype=np.float64)
    candidate = np.array([clip.candidate.errors for clip in clips], dtype=np.float64)
    total, count = float(words.sum()), len(clips)
    loss = float((candidate - live).sum()) / total
    spread = float(((candidate - live - loss * words) ** 2).sum())
    error = (count / (count - 1) * spread) ** 0.5 / total
    return GuardFigure(
        f"word error rate of the worst recording ({name})",
        float(live.sum()) / total,
        float(candidate.sum()) / total,
        max(RECORDING_TOLERANCE, student(1 - doubt, count - 1) * error),
    )


def _invents(draft: Draft) -> bool:
    return bool(normalise(draft.text)) and not set(draft.flags) - _NO_WARNING


def _empty(heard: Heard) -> bool:
    return not normalise(heard.text)
