"""Cutting audio that is longer than the model's window, and putting the texts together again. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from daemon.asr.transcriber import SAMPLE_RATE, Waveform

_PAUSE = SAMPLE_RATE // 5
"""Samples over which quietness is judged: shorter gaps are stops within a word."""


def cut(audio: Waveform, longest: int) -> list[Waveform]:
    """Cut into consecutive pieces of at most `longest` samples (two or more); every sample is in exactly one.

    Each cut falls in the middle of the quietest fifth of a second in the second half of its window, the latest one
    where several are equally quiet. Audio that fits comes back whole.
    """
    pieces = []
    while len(audio) > longest:
        at = _quietest(audio[:longest])
        pieces.append(audio[:at])
        audio = audio[at:]
    return [*pieces, audio]


def stitch(texts: Iterable[str]) -> str:
    """The texts of consecutive pieces as one."""
    return " ".join(filter(None, (text.strip() for text in texts)))


def _quietest(window: Waveform) -> int:
    """Where to cut, between half of the window's samples and all of them."""
    half = len(window) // 2
    second = window[half:].astype(np.float64)
    width = min(_PAUSE, len(second))
    energy = np.cumsum(np.concatenate([[0.0], second**2]))
    moving = energy[width:] - energy[:-width]
    # Rounding in the running sum must not tell two silences apart.
    quiet = np.flatnonzero(moving <= moving.min() + 1e-9 * energy[-1])
    return half + int(quiet[-1]) + width // 2
