"""What Whisper cannot do without: floating-point operations, and bytes of weights and of the decoder's memory.

A multiplication with an addition counts as two. Normalisations, activations, softmax and what is written in between are
left out: a few per cent, and a kernel that is fused well need not move them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shapes import SENTENCE, Shape

SAID = len(SENTENCE) + 1
"""Tokens that each clip is answered with, the end token among them."""
PROMPT = 4
"""Tokens before them."""
Batch = tuple[int, int]
"""Rows, and frames of their window."""


@dataclass(frozen=True, slots=True)
class Work:
    """Of a stretch of time."""

    flops: float
    bytes: float

    def share(self, seconds: float, flops: float, bandwidth: float) -> tuple[float, float]:
        """Of what a device could have done meanwhile, at most: of its operations, and of its bytes, a second."""
        return self.flops / seconds / flops, self.bytes / seconds / bandwidth


def drafting(shape: Shape, batches: Iterable[Batch], size: int) -> Work:
    """Greedy, with a cache, every batch by itself. `size`: bytes of a number.

    A pass of the decoder gives a token to each row and reads its weights once; the first takes the whole prompt.
    """
    flops = moved = 0.0
    fed = PROMPT + SAID - 1  # the end token is not fed any more
    seen = sum(range(PROMPT, fed + 1))
    """Positions that the passes look back at."""
    for rows, frames in batches:
        flops += rows * (_encoder(shape, frames) + _decoder(shape, frames, fed) + SAID * _vocabulary(shape))
        cached = 2 * shape.width * shape.layers * rows * (SAID * (frames // 2) + seen)
        moved += size * (_encoder_weights(shape) + SAID * _decoder_weights(shape) + cached)
    return Work(flops, moved)


def training(shape: Shape, batches: Iterable[Batch]) -> Work:
    """Forwards, and backwards for twice as much. Of the bytes nothing is told: they are not what it waits for."""
    fed = PROMPT + SAID - 1
    flops = sum(
        rows * (_encoder(shape, frames) + _decoder(shape, frames, fed) + fed * _vocabulary(shape))
        for rows, frames in batches
    )
    return Work(3 * flops, 0.0)


def _encoder(shape: Shape, frames: int) -> float:
    """Of one window: two convolutions, of which the second halves the frames; attention and feed-forward."""
    width, positions = shape.width, frames // 2
    convolutions = 6 * width * (frames * shape.mels + positions * width)
    return convolutions + positions * shape.layers * (24 * width**2 + 4 * width * positions)


def _decoder(shape: Shape, frames: int, fed: int) -> float:
    """Of one row: keys and values of its window once; then each position, which looks back at those before it."""
    width, positions = shape.width, frames // 2
    window = positions * 4 * width**2
    each = 28 * width**2 + 4 * width * positions
    return shape.layers * (window + fed * each + 4 * width * fed * (fed + 1) / 2)


def _vocabulary(shape: Shape) -> float:
    return 2 * shape.width * shape.vocabulary


def _encoder_weights(shape: Shape) -> float:
    """With those that make keys and values of a window."""
    width = shape.width
    return 3 * width * (shape.mels + width) + shape.layers * (12 + 2) * width**2


def _decoder_weights(shape: Shape) -> float:
    return shape.layers * 14 * shape.width**2 + shape.width * shape.vocabulary
