"""Trained versions without a training: folders that the registry published, and their rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import psycopg

from daemon.asr import families
from daemon.learning.registry import Registry
from daemon.local.tiny import BASE


def publish_trained(db: psycopg.Connection[Any], state: Path, *, shift: float = 1e-4) -> int:
    """A candidate whose weights differ from the carried model's by `shift`, whole in the state directory `state`.

    Returns its number. Its language is the settings' default.
    """
    from safetensors.torch import load_file, save_file

    row = db.execute(
        "insert into model_versions (name, fingerprint, kind, stage) "
        "values ('trained', gen_random_uuid()::text, 'trained', 'candidate') returning id"
    ).fetchone()
    assert row is not None
    version = int(row[0])
    registry = Registry(state / "models")
    model = registry.folder(version) / "model"
    shutil.copytree(BASE, model)
    weights = load_file(model / "model.safetensors")
    name = next(name for name in sorted(weights) if weights[name].is_floating_point() and weights[name].ndim == 2)
    weights[name] = weights[name] + shift
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    registry.publish(version, {"training": {}})
    fingerprint = families.fingerprint("whisper", {"model": str(model), "device": "cpu"})
    db.execute(
        "update model_versions set name = %s, fingerprint = %s where id = %s",
        [f"trained-{version:04}", fingerprint, version],
    )
    return version
