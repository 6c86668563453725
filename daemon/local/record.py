"""What a running stack leaves in its folder, so that another process can find it, use it, or clean up after it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from daemon.local.process import Identity


@dataclass(frozen=True, slots=True)
class Record:
    """The file `stack.json`: who runs the stack, and where it listens."""

    url: str
    db_url: str
    ephemeral: bool
    owner: Identity
    children: tuple[Identity, ...]

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """The record in `folder`, of a stack that runs or that crashed; None if it was stopped in order."""
        try:
            raw = json.loads(_path(folder).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        children = tuple(Identity(**child) for child in raw.pop("children"))
        return cls(owner=Identity(**raw.pop("owner")), children=children, **raw)

    def write(self, folder: Path) -> None:
        """Replace the file as a whole; it holds the database's password, so nobody else may read it."""
        half = _path(folder).with_suffix(".half")
        half.touch(mode=0o600)
        half.write_text(json.dumps(asdict(self)), encoding="utf-8")
        half.replace(_path(folder))

    def running(self) -> bool:
        """Whether the process that made it is still there."""
        return self.owner.alive()

    def sweep(self, folder: Path) -> None:
        """End what a stopped or crashed owner left running, and remove the record."""
        for child in reversed(self.children):
            child.stop(patience_s=10, first=signal.SIGINT)
        erase(folder)


def erase(folder: Path) -> None:
    """Remove the record: the stack was stopped in order."""
    _path(folder).unlink(missing_ok=True)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """One start or stop of the stack in `folder` at a time; others wait. The kernel frees it if the holder dies."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _path(folder: Path) -> Path:
    return folder / "stack.json"
