"""What a version's folder is made of, and what its manifest says of that."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from daemon.asr.digests import digest
from daemon.errors import PermanentError, TemporaryError, machine_trouble

MANIFEST = "manifest.json"
FORMAT = 1
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".joblib", ".py")
"""Files of such names may run code when they are opened."""


def model_files(folder: Path, version: int) -> list[str]:
    """The model's files, as paths under the version's folder. Raises `PermanentError` if they are no model to open."""
    model = folder / "model"
    if not model.is_dir() or model.is_symlink():
        raise PermanentError(
            f"Version {version} is not on this host: it was trained elsewhere, or its weights were removed with time.",
            reason="model-missing",
        )
    try:
        paths = sorted(model.iterdir())
    except OSError as error:
        raise machine_trouble(error) or error from None
    for path in paths:
        if path.suffix.lower() in _PICKLES or path.is_symlink() or not path.is_file():
            raise PermanentError(
                f"Version {version} holds {path.name}, which is no part of a model and may run code: remove it.",
                reason="model-unsafe",
            )
    if not any(path.suffix == ".safetensors" for path in paths):
        raise PermanentError(f"Version {version} holds no weights: train again.", reason="model-torn")
    return [f"model/{path.name}" for path in paths]


def stamps_of(folder: Path, version: int) -> dict[str, dict[str, Any]] | None:
    """File -> size and sha256; None where there is no manifest of this version. Raises `TemporaryError`."""
    match _read_object(folder / MANIFEST):
        case {"format": format_, "version": number, "files": dict(files)} if (format_, number) == (FORMAT, version):
            return files
    return None


def stamp(path: Path) -> dict[str, Any]:
    """Size and sha256 of a file. Raises `OSError` where it cannot be read."""
    return {"bytes": path.stat().st_size, "sha256": digest(path)}


def is_as(path: Path, stamped: dict[str, Any]) -> bool:
    """Whether a file can be read, and is what its stamp says. Raises `TemporaryError` where the machine fails."""
    try:
        return stamp(path) == stamped
    except OSError as error:
        if trouble := machine_trouble(error):
            raise trouble from None
        return False


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is none that can be read."""
    try:
        return _read_object(path)
    except TemporaryError:
        return None


def _read_object(path: Path) -> dict[str, Any] | None:
    """The same, but raises `TemporaryError` where the machine fails."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        if trouble := machine_trouble(error):
            raise trouble from None
        return None
    return found if isinstance(found, dict) else None


def bytes_in(folder: Path) -> int:
    """What a folder takes; what goes from it meanwhile counts for nothing."""
    found = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            found += path.lstat().st_size
    return found
