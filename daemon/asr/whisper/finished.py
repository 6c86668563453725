"""The end of a training on disk: a model that is whole, or not there."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from daemon.asr.training import TrainingError, TrainingResult
from daemon.asr.whisper.checkpoints import sync_names, sync_tree
from daemon.asr.whisper.halves import half_in
from daemon.asr.whisper.windows import Windows

MODEL = "model"
_RESULT = "result.json"
_HALF = f".{MODEL}.part-"


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


def publish(model: Any, processor: Any, windows: Windows, out: Path, result: TrainingResult) -> TrainingResult:
    """Save a model, its processor and its windows, in safetensors, under their name when they are on the disk.

    Returns what the folder holds then. That is another's if another process trained the same run here and was first:
    one that was taken for dead and only stood still. What lies under the name may be in use, and is left alone.
    """
    with half_in(out, _HALF) as half:
        processor.save_pretrained(half)
        model.save_pretrained(half)
        windows.write(half)
        with (half / _RESULT).open("w", encoding="utf-8") as file:
            json.dump(result.facts(), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        sync_tree(half)
        (half / _RESULT).replace(out / _RESULT)
        sync_names(out)  # a model without its result would be taken for somebody else's
        try:
            half.rename(out / MODEL)
        except OSError as error:  # onto a folder that holds something it is always refused
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            result = found(out, resume=True) or result
        sync_names(out)
    return result
