"""How sure a difference in word error rate is: a paired bootstrap over whole recordings.

Clips of one recording share a voice, a room and a subject, so the recording is what is drawn. Both models heard the
same clips, so each draw takes the errors of both. The spread of the pooled difference over the draws is its standard
error; with few recordings that spread is itself uncertain, so it is widened as Student's t asks, with as many degrees
of freedom as recordings less one. (The draws' own percentiles would promote one equal model in five from two or three
recordings.) Recordings of unequal size count for fewer: (sum of words)^2 / sum of (words^2). The same is done with
single clips as blocks, and the wider end counts, so that two recordings that happen to agree do not look certain.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_MARGIN = 0.8
"""Of the allowed doubt: where recordings are many and very unequal, Student's t alone falls short by up to a tenth."""
_AT_ONCE = 2_000_000
"""Draws held in memory together."""

_Sums = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """The gain of one model over another: absolute word error rate, pooled over words, positive when it is better."""

    gain: float
    low: float
    """The true gain is at least this, with the stated confidence (one-sided)."""
    high: float
    """It is at most this, with the same confidence."""


def paired_interval(
    gains: Sequence[int],
    words: Sequence[int],
    recordings: Sequence[Hashable],
    *,
    confidence: float,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The gain over all clips, and how far it can be trusted for recordings like these.

    One entry per clip: errors of the live model minus errors of the candidate, reference words, and the recording. The
    same input gives the same interval. From a single recording nothing is known about others: the ends are -1 and 1.
    Raises `ValueError` where there is no reference word, the lists differ in length, or `confidence` is not in (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"A confidence lies between 0 and 1, and {confidence} does not.")
    by_clip, length = np.asarray(gains, dtype=np.float64), np.asarray(words, dtype=np.float64)
    if not len(by_clip) == len(length) == len(recordings):
        raise ValueError("There must be one gain, one number of words and one recording per clip.")
    if length.sum() <= 0:
        raise ValueError("Without a reference word there is no word error rate.")
    gain = float(by_clip.sum() / length.sum())
    number = {recording: at for at, recording in enumerate(dict.fromkeys(recordings))}
    if len(number) < 2:
        return Interval(gain, -1.0, 1.0)
    by_recording, in_recording = np.zeros(len(number)), np.zeros(len(number))
    of_clip = [number[recording] for recording in recordings]
    np.add.at(by_recording, of_clip, by_clip)
    np.add.at(in_recording, of_clip, length)
    draw = np.random.default_rng(seed)
    reach = max(
        _reach(by_recording, in_recording, confidence, resamples, draw),
        _reach(by_clip, length, confidence, resamples, draw),
    )
    return Interval(gain, gain - reach, gain + reach)


def _reach(gains: _Sums, words: _Sums, confidence: float, resamples: int, draw: np.random.Generator) -> float:
    """How far the true gain may lie from the pooled one, to one side, when these blocks are what chance draws."""
    blocks = len(words)
    pooled: list[_Sums] = []
    for start in range(0, resamples, most := max(1, _AT_ONCE // blocks)):
        drawn = draw.integers(blocks, size=(min(most, resamples - start), blocks))
        pooled.append(gains[drawn].sum(1) / np.maximum(words[drawn].sum(1), 1))
    alike = max(2.0, float(words.sum() ** 2 / (words**2).sum()))
    # A draw of n from n blocks spreads less than n new blocks would, by (n - 1) / n.
    error = float(np.concatenate(pooled).std()) * math.sqrt(alike / (alike - 1))
    return student(1 - _MARGIN * (1 - confidence), alike - 1) * error


def student(probability: float, freedom: float) -> float:
    """Quantile of Student's t for 1 or more degrees of freedom, fractions included.

    With t = sqrt(f) tan(a) the density becomes cos(a)^(f - 1): smooth and bounded, so a sum over a grid is enough.
    """
    angles = np.linspace(-np.pi / 2, np.pi / 2, 20_001)
    density = np.cos(angles).clip(0) ** (freedom - 1)
    reached = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(freedom) * float(np.tan(np.interp(probability, reached / reached[-1], angles)))
