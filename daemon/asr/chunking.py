"""Cutting audio that is longer than the model's window, and putting the texts together again. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from daemon.asr.transcriber import SAMPLE_RATE, Draft, Waveform, uncertainty

_PAUSE = SAMPLE_RATE // 5
"""Samples over which quietness is judged: shorter gaps are stops within a word."""


def cut(audio: Waveform, longest: int, search: int | None = None) -> list[Waveform]:
    """Cut into consecutive pieces of at most `longest` samples (two or more); every sample is in exactly one.

    Each cut falls in the middle of the quietest fifth of a second in the second half of its window, or in the last
    `search` samples of that, and is the latest one where several are equally quiet. Audio that fits comes back whole.
    """
    pieces = []
    while len(audio) > longest:
        begin = max(longest // 2, longest - (search or longest))
        at = begin + _quietest(audio[begin:longest])
        pieces.append(audio[:at])
        audio = audio[at:]
    return [*pieces, audio]


def stitch(texts: Iterable[str]) -> str:
    """The texts of consecutive pieces as one."""
    return " ".join(filter(None, (text.strip() for text in texts)))


def joined(drafts: Sequence[Draft]) -> Draft:
    """The drafts of consecutive pieces as one. A piece weighs in the confidence as much as its text is long."""
    if len(drafts) == 1:
        return drafts[0]
    said = [(draft.confidence, len(draft.text)) for draft in drafts if draft.confidence is not None and draft.text]
    without = {"chunked"} | ({"silence"} if said else set())
    flags = dict.fromkeys(flag for draft in drafts for flag in draft.flags if flag not in without)
    confidence = sum(value * weight for value, weight in said) / sum(weight for _, weight in said) if said else None
    believed = all(draft.uncertainty for draft in drafts if draft.text)
    doubt = uncertainty(confidence) if confidence is not None and believed else 0.0
    return Draft(stitch(draft.text for draft in drafts), confidence, (*flags, "chunked"), doubt)


def _quietest(stretch: Waveform) -> int:
    """Where to cut."""
    samples = stretch.astype(np.float64)
    width = min(_PAUSE, len(samples))
    energy = np.cumsum(np.concatenate([[0.0], samples**2]))
    moving = energy[width:] - energy[:-width]
    # Rounding in the running sum must not tell two silences apart.
    quiet = np.flatnonzero(moving <= moving.min() + 1e-9 * energy[-1])
    return int(quiet[-1]) + width // 2
