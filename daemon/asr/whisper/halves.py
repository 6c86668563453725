"""Folders that are not finished: whose process lives they are, and what a crash left of others."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4


@contextmanager
def half_in(place: Path, beginning: str) -> Iterator[Path]:
    """A folder for this process alone, locked while it lives; those of processes that ended in one are removed.

    `beginning`: of its name. It is removed in the end, unless it was renamed.
    """
    remove_left(place, beginning)
    half = place / f"{beginning}{uuid4().hex}"
    half.mkdir(mode=0o700)
    with _locked(half):
        try:
            yield half
        finally:
            shutil.rmtree(half, ignore_errors=True)


def remove_left(place: Path, beginning: str) -> None:
    """Remove the folders of processes that are gone."""
    for left in place.glob(f"{beginning}*"):
        with suppress(OSError), _locked(left):
            shutil.rmtree(left)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Raises `BlockingIOError` if another process, be it one that stands still, holds it."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(number)
