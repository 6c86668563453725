"""From the settings to what a training run is asked to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from daemon.learning.audiofolder import Frozen
from daemon.learning.job import TrainJob
from daemon.learning.ports import Sample, Side
from daemon.sections import TrainingSettings


def training_options(settings: TrainingSettings, base: Mapping[str, Any]) -> dict[str, Any]:
    """The family's training settings as JSON; `base` are the options that open the model to start from."""
    return {
        "base": base["model"],
        "language": base["language"],
        "task": base["task"],
        "device": base["device"],
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "gradient_accumulation": settings.gradient_accumulation,
        "learning_rate": settings.learning_rate,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "spec_augment": settings.spec_augment,
        "windows": settings.windows,
        "lora_rank": settings.lora_rank,
        "arguments": dict(settings.arguments),
    }


def train_job(family: str, settings: TrainingSettings, base: Mapping[str, Any], folder: Path) -> TrainJob:
    """What a child does in a version's folder, where the frozen data lies; it goes on from what another has left."""
    options = training_options(settings, base)
    return TrainJob(
        family,
        options,
        folder / "data",
        folder,
        resume=True,
        processes=settings.processes,
        nodes=settings.nodes,
        rendezvous=settings.rendezvous,
    )


def with_rehearsal(samples: Sequence[Sample], rehearsal: float) -> list[Sample]:
    """All that is new or held out, and for each new training clip `rehearsal` old ones, so that they are not forgotten.

    Which old ones is drawn by a hash of the clip and of how many are new: another sample in every run, and the same
    when a run is taken over.
    """
    train = [sample for sample in samples if sample.side is Side.TRAIN]
    new = sum(not sample.seen for sample in train)
    old = sorted(
        (sample.clip_id for sample in train if sample.seen), key=lambda clip: sha256(f"{new}:{clip}".encode()).digest()
    )
    left = set(old[round(rehearsal * new) :])
    return [sample for sample in samples if sample.clip_id not in left]


def in_short(frozen: Frozen) -> dict[str, Any]:
    """What a run learned from, without its clips."""
    return {
        "train": asdict(frozen.train),
        "held_out": asdict(frozen.held_out),
        "left_out": dict(frozen.left_out),
        "notes": dict(frozen.notes),
    }
