"""What hears spectrograms: the contract behind which the engines stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

SEED = 20_140
"""Of the draws above temperature 0: a model that is loaded anew draws as it did before, and so does its copy."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a model said to one spectrogram."""

    tokens: list[int]
    """Without the end token."""
    log_probability: float
    """Sum over the tokens, the end token included where it came; natural logarithm, at the temperature that they were
    drawn at."""
    finished: bool
    """Whether the end token came before the decoder was full."""
    no_speech: float | None
    """Probability of Whisper's no-speech token, where the model has one."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model on disk, read as far as an engine needs to know it before its weights."""

    fingerprint: str
    tokenizer: Any
    config: Any
    generation: Any
    """What `WhisperConfig` and `GenerationConfig` hold of it."""
    prompt: dict[str, str]
    """Language and task, or nothing for an English-only model."""
    load: Callable[[torch.dtype], Any]
    """Gives the model of transformers, on the CPU. Raises `ModelError`."""
    converted: Path | None
    """Where it may be kept in another form."""


class Engine(Protocol):
    """Weights on a device. One thread owns it."""

    name: str
    """``transformers`` or ``ctranslate2``."""
    dtype: str
    """Of the weights: ``float32``, ``float16``, ``bfloat16`` or ``int8``."""
    parameters: int
    """How many the model has."""

    def hear(self, features: Any, temperature: float = 0.0) -> list[Spoken]:
        """Hear log-mel spectrograms, a float32 tensor (windows, mels, frames) on the CPU.

        At temperature 0 each token is the likeliest one, so equal spectrograms give equal text. Above, tokens are
        drawn, and two engines of equal weights that hear the same in the same order draw the same: a judge that hears
        one model twice finds no difference. Raises the device's own error when it fails or its memory runs out (see
        `daemon.asr.errors.out_of_memory`).
        """
