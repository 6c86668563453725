"""A small data set and a base, with which several processes come to the same as one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiofolders import write_side

from daemon.local.speech import speak_corpus
from daemon.local.tiny import BASE

SETTINGS: Mapping[str, Any] = {
    "learning_rate": 1e-3,
    "batch_size": 4,
    "gradient_accumulation": 2,
    "epochs": 16,
    "eval_steps": 20,
    "save_steps": 4,
    "spec_augment": False,
}
"""17 clips: two whole steps an epoch, and one with a clip for one of two processes alone."""


def spoken_set(folder: Path) -> Path:
    """17 clips to train on and five held out, in `folder`/data. Returns that."""
    clips = speak_corpus("B", 22, seed=51)
    write_side(folder / "data", "train", clips[:17])
    return write_side(folder / "data", "test", clips[17:])


def calm_base(folder: Path) -> Path:
    """The carried base without dropout: chance falls otherwise for each process. Returns `folder`/base."""
    base = Path(shutil.copytree(BASE, folder / "base"))
    config = json.loads((base / "config.json").read_text())
    off = {name: 0.0 for name in config if name.endswith("dropout")}
    (base / "config.json").write_text(json.dumps(config | off))
    return base
