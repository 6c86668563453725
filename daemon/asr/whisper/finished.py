"""The end of a training on disk: a model that is whole, or not there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from daemon.asr.training import TrainingError, TrainingResult
from daemon.asr.whisper.checkpoints import sync_names, sync_tree

MODEL = "model"
_RESULT = "result.json"


def found(out: Path, *, resume: bool) -> TrainingResult | None:
    """What a training that ended earlier returned; None if none has ended in this folder.

    Raises `TrainingError` if there is a model and `resume` is not asked for, or nothing tells where it is from.
    """
    if not (out / MODEL).exists():
        return None
    if not resume:
        raise TrainingError("exists", f"{out} holds a model already: train into another folder.")
    try:
        facts = json.loads((out / _RESULT).read_text())
        return TrainingResult(**facts | {"model": out / MODEL})
    except (OSError, ValueError, TypeError):
        raise TrainingError(
            "exists", f"{out} holds a model that no training here made: train into another folder."
        ) from None


def publish(model: Any, processor: Any, out: Path, result: TrainingResult) -> None:
    """Save a model and its processor, in safetensors, under their name when they are on the disk."""
    half = out / f".{MODEL}.part"
    shutil.rmtree(half, ignore_errors=True)
    processor.save_pretrained(half)
    model.save_pretrained(half)
    with (out / _RESULT).open("w", encoding="utf-8") as file:
        json.dump(result.facts(), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    sync_tree(half)
    sync_names(out)  # a model without its result would be taken for somebody else's
    half.rename(out / MODEL)
    sync_names(out)
