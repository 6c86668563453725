"""What training a model says and gives back, whatever the family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Phase = Literal["features", "training", "evaluating", "saving"]


class TrainingError(Exception):
    """The training cannot begin or go on; the message is one sentence for a person, with the remedy."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        """A slug that is stored and counted, such as ``out-of-memory``; `REASONS` has them all."""


class TrainAgainError(TrainingError):
    """Several processes that train together have to be begun anew, to go on from their newest checkpoint."""

    def __init__(self, reason: str, message: str, settings: Mapping[str, Any]) -> None:
        super().__init__(reason, message)
        self.settings = settings
        """What has to be otherwise then."""


REASONS: Mapping[str, str] = {
    "settings": "a setting that this family, or the library below it, does not take",
    "base": "the model to start from cannot be used",
    "data": "the data set is not one, or nothing in it can be learned from",
    "exists": "the folder holds a model, or checkpoints, already",
    "other-training": "the folder's checkpoints are of other data or other settings",
    "disk-full": "no room for the checkpoints",
    "out-of-memory": "not even one clip fits into the device's memory",
    "machines": "machines that are to train together do not find each other, or are not alike",
    "not-a-number": "the loss, the gradients or the weights are no numbers any more",
}
"""Slug of a `TrainingError` -> what it stands for."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is."""

    phase: Phase
    step: int
    """Of the training; in the phase ``features`` clips."""
    steps: int
    """How many there will be; in the phase ``features`` clips."""
    loss: float | None = None
    """Cross-entropy per token, natural logarithm, mean over the last steps."""
    wer: float | None = None
    """Word error rate, normalised, on some held-out clips when they were last tried."""
    seconds_left: float | None = None
    """Of the training, as far as its pace can tell."""

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a training would do."""

    clips: int
    """To learn from."""
    seconds: float
    """Of audio in them."""
    held_out: int
    """Clips that the data set keeps for judging."""
    left_out: Mapping[str, int]
    """Reason -> clips of the training side that cannot be learned from."""
    steps: int
    device: str
    precision: str
    """Of the arithmetic: ``float32``, ``bfloat16`` or ``float16``."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What came of a training."""

    model: Path | None
    """The folder of the finished model; None if the training was stopped before its end."""
    stopped: bool
    """Whether it was asked to stop; it goes on from its last checkpoint when it is begun again."""
    step: int
    """How many steps the weights have seen; 0 where it was stopped before the first."""
    steps: int
    clips: int
    """Learned from."""
    seconds: float
    """Of audio in them."""
    left_out: Mapping[str, int]
    """Reason -> clips."""
    device: str
    precision: str
    batch_size: int
    """Clips on the device at once in the end: less than was asked for if its memory ran out."""
    gradient_accumulation: int
    loss: float | None = None
    """Mean over the last steps."""
    wer: float | None = None
    """Word error rate, normalised, on some held-out clips, of the last weights. Reported; nothing is chosen by it."""
    resumed_from: int | None = None
    """Step of the checkpoint that it went on from."""
    parameters: int = 0
    """How many were trained; with LoRA a fraction of the model's."""
    processes: int = 1
    """How many shared each step: `batch_size` and `gradient_accumulation` are those of one of them."""

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"model": str(self.model) if self.model else None}
