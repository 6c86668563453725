"""The one interface behind which every model family and engine stands."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000
"""Hz. Every waveform in the project is mono float32 at this rate."""

Waveform = npt.NDArray[np.float32]
"""Shape (samples,), mono, 16 kHz, nominally in [-1, 1], finite."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What a model heard in one clip."""

    text: str
    confidence: float | None
    """Mean log-probability of the generated tokens, natural logarithm, <= 0. None where nothing was generated."""
    flags: tuple[str, ...] = ()
    """What a person should know: ``silence``, ``repetition``, ``low-confidence``, ``truncated``, ``chunked``."""
    uncertainty: float = 0.0
    """From 0 to 1: `uncertainty` of the confidence. 0 as well where a correction would teach nothing: no words, no
    voice, or words that a guard does not believe."""


def uncertainty(confidence: float) -> float:
    """1 - the geometric mean of the tokens' probabilities: -0.1 -> 0.095, -2 -> 0.865.

    Least confidence (Settles and Craven 2008, https://aclanthology.org/D08-1112), per token: by the plain sum the
    longest clips would come first, whatever is in them.
    """
    return -math.expm1(confidence)


class Transcriber(ABC):
    """A model, loaded and ready. Not thread-safe: one thread owns it."""

    name: str
    """The model as a person named it: a directory or a hub id."""
    fingerprint: str
    """sha256 (hex) over weights, generation settings, tokenizer and language: equal means equal drafts."""
    window_s: float
    """The longest stretch of audio, in seconds, that the model hears at once. Longer audio is cut and stitched."""

    @abstractmethod
    def transcribe(self, batch: Sequence[Waveform]) -> list[Draft]:
        """Draft each waveform, in order. One `Draft` per waveform, of any length.

        Raises whatever the engine raises when the device fails; the batch is then not drafted at all.
        """

    def warm_up(self) -> None:
        """Run once on a second of noise, so that the first real clip does not pay for lazy initialisation."""
        noise = np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32) * 0.1
        self.transcribe([noise])

    def memory(self) -> tuple[int, int] | None:
        """Bytes of its graphics card that are free at this moment, and all that it has; None where it uses none.

        Raises whatever the device raises.
        """
        return None

    def describe(self) -> dict[str, Any]:
        """Facts about the loaded model for logs and `status`: device, dtype, language, parameters."""
        return {"name": self.name, "fingerprint": self.fingerprint, "window_s": self.window_s}
