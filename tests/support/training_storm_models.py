"""Small Whispers that differ from the carried one, as versions on disk and in the database."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import torch
from safetensors.torch import load_file, save_file

from daemon.asr import families
from daemon.learning.registry import Registry
from daemon.local.tiny import BASE

Change = Callable[[torch.Tensor], torch.Tensor]


def shaken(scale: float, seed: int) -> Change:
    """Weights with noise."""

    def change(weight: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return weight + scale * torch.randn(weight.shape, generator=generator)

    return change


def nowhere(weight: torch.Tensor) -> torch.Tensor:
    """Weights that are no numbers."""
    return weight * float("nan")


def candidate(db: psycopg.Connection[Any], registry: Registry, change: Change) -> int:
    """A trained version whose decoder is the carried model's, changed. Returns its number."""
    row = db.execute(
        "insert into model_versions (name, fingerprint, kind, stage) "
        "values ('trained', gen_random_uuid()::text, 'trained', 'candidate') returning id"
    ).fetchone()
    assert row is not None
    version = int(row[0])
    model = _altered(registry.folder(version) / "model", change)
    registry.publish(version, {})
    mark = families.fingerprint("whisper", {"model": str(model), "device": "cpu"})
    db.execute("update model_versions set fingerprint = %s where id = %s", [mark, version])
    return version


def _altered(folder: Path, change: Change) -> Path:
    shutil.copytree(BASE, folder)
    weights = load_file(folder / "model.safetensors")
    changed = {name: change(each).contiguous() if "decoder" in name else each for name, each in weights.items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
