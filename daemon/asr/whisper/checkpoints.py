"""Checkpoints that are whole, or not there.

A manifest with the sha256 of every file is written last and reaches the disk last: a checkpoint without one, or with
other bytes than it says, was interrupted. The files beside the weights are pickles that torch opens as plain data only;
their folder belongs to its owner alone.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
from pathlib import Path

from daemon.asr.training import TrainingError

MANIFEST = "manifest.json"
KEPT = 2
_NOTHING_FREE = 1 << 20
"""Bytes. What could not be written still lies there, and fills the disk."""
_NAME = re.compile(r"checkpoint-(\d+)")


def seal(checkpoint: Path, training: str) -> None:
    """Let a checkpoint reach the disk, and say so in its manifest. `training`: what it is a checkpoint of."""
    files = {str(file.relative_to(checkpoint)): _digest(file) for file in _files(checkpoint)}
    sync_tree(checkpoint)
    half = checkpoint / f"{MANIFEST}.part"
    with half.open("w") as file:
        json.dump({"training": training, "files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    half.replace(checkpoint / MANIFEST)
    for folder in (checkpoint, checkpoint.parent):
        sync_names(folder)


def newest_whole(folder: Path, training: str) -> Path | None:
    """The newest whole checkpoint in a folder. Newer ones that are not whole are removed.

    Raises `TrainingError` if it is of another training: of other data, or with other settings; and if somebody else
    than this user may have made it.
    """
    for checkpoint in _by_age(folder):
        _need_own(checkpoint)
        if (found := _whole(checkpoint)) is None:
            shutil.rmtree(checkpoint)
        elif found != training:
            raise TrainingError(
                "other-training",
                f"The checkpoints in {folder} are of other data or other settings: "
                "train with those again, or into another folder.",
            )
        else:
            return checkpoint
    return None


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was made."""
    name = _NAME.fullmatch(checkpoint.name)
    assert name
    return int(name[1])


def keep_newest(folder: Path) -> None:
    """Remove all checkpoints but the newest two. Call it when the newest is sealed."""
    for checkpoint in _by_age(folder)[KEPT:]:
        shutil.rmtree(checkpoint)


def sync_tree(folder: Path) -> None:
    """Let every file of a folder, and their names, reach the disk."""
    for file in _files(folder):
        number = os.open(file, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    for below in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        sync_names(below)


def need_room(folder: Path, wanted: int) -> None:
    """Raise `TrainingError` unless so many bytes are free where the folder is."""
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise TrainingError(
            "disk-full",
            f"A training needs {wanted / 1e9:.1f} GB free in {folder} for its checkpoints and spectrograms, "
            f"and there are {free / 1e9:.1f} GB: make room, or train elsewhere.",
        )


def no_room(error: BaseException, folder: Path) -> bool:
    """Whether that failed because the disk of a folder is full. Some writers say so, torch's says anything but."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "no space left on device" in str(error).lower() or shutil.disk_usage(folder).free < _NOTHING_FREE


def remove_unfinished(folder: Path) -> None:
    """Give back the room of checkpoints that were never sealed."""
    for checkpoint in _by_age(folder):
        if not (checkpoint / MANIFEST).exists():
            shutil.rmtree(checkpoint)


def _need_own(checkpoint: Path) -> None:
    """Whoever can write a checkpoint can write its manifest too, and some of its files are pickles."""
    for path in (checkpoint.parent, checkpoint):
        facts = path.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & stat.S_IWOTH:
            raise TrainingError(
                "checkpoint-unsafe",
                f"{path} is a link, or belongs to another user, or anybody may write there, so it is not gone on from: "
                "train into another folder.",
            )


def _by_age(folder: Path) -> list[Path]:
    """The newest first."""
    found = [path for path in folder.glob("checkpoint-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=step_of, reverse=True)


def _whole(checkpoint: Path) -> str | None:
    """What it is a checkpoint of, if every file is as the manifest says."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text())
        files = {str(file.relative_to(checkpoint)): _digest(file) for file in _files(checkpoint)}
        return str(manifest["training"]) if manifest["files"] == files else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)


def _digest(file: Path) -> dict[str, str | int]:
    with file.open("rb") as content:
        return {"sha256": hashlib.file_digest(content, "sha256").hexdigest(), "size": file.stat().st_size}


def sync_names(folder: Path) -> None:
    """Let the names in a folder reach the disk."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
