"""What a disk may hold after a power cut: anything that was flushed, and of the rest whatever it happens to have kept.

A file's contents are safe once the file was flushed, a name once its directory was. What came after the last flush may
be there, be lost, or, of contents, be there in part. File systems promise more than that, each something else; what
stands here is what POSIX leaves (fsync(2); Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014).
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from pathlib import Path

Names = dict[str, int]
Choice = Callable[[str, bool, bool], str]
"""(kind: "name" or "contents", is it kept by a flush, is it there now) -> "flushed", "now" or "half"."""


class Disk:
    """Watches a directory's flushes in this process. `settle` first, then `install`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, Names] = {}
        self._pins: list[int] = []

    def settle(self) -> None:
        """All that is there now was flushed long ago."""
        for path in (self._root, *self._root.rglob("*")):
            number = os.open(path, os.O_RDONLY)
            self._flushed(number)
            os.close(number)

    def install(self) -> None:
        """Be the disk from now on, in a process that ends soon: flushes come here, and not to the real one."""
        os.fsync = self._flushed

    def after_cut(self, target: Path, choice: Choice) -> None:
        """Lay out in `target`, a new directory, what the next start may find. `choice` says which of the possible."""
        present = {path.stat().st_ino: path for path in (self._root, *self._root.rglob("*"))}
        self._lay(self._root.stat().st_ino, target, present, choice)

    def _flushed(self, number: int) -> None:
        inode = os.fstat(number).st_ino
        self._pins.append(os.dup(number))  # or another file might get its number
        path = Path(f"/proc/self/fd/{number}")
        if stat.S_ISDIR(os.fstat(number).st_mode):
            self._names[inode] = _names(path)
        else:
            self._contents[inode] = path.read_bytes()

    def _lay(self, inode: int, target: Path, present: dict[int, Path], choice: Choice) -> None:
        """One directory: of each name that differs, what was flushed or what is there now."""
        target.mkdir(mode=0o700)
        flushed = self._names.get(inode, {})
        now = _names(present[inode]) if inode in present else {}
        for name in sorted(flushed.keys() | now.keys()):
            entry = flushed.get(name)
            if entry != now.get(name) and choice("name", name in flushed, name in now) == "now":
                entry = now.get(name)
            if entry is None:
                continue
            if entry in self._names or (entry in present and present[entry].is_dir()):
                self._lay(entry, target / name, present, choice)
            else:
                (target / name).write_bytes(self._file(entry, present, choice))

    def _file(self, inode: int, present: dict[int, Path], choice: Choice) -> bytes:
        flushed = self._contents.get(inode, b"")
        now = present[inode].read_bytes() if inode in present else flushed
        if now == flushed:
            return flushed
        chosen = choice("contents", inode in self._contents, inode in present)
        return {"flushed": flushed, "now": now, "half": now[: len(now) // 2]}[chosen]


def worst(_kind: str, _flushed: bool, _now: bool) -> str:
    """Nothing is kept that was not flushed."""
    return "flushed"


def empty_files(kind: str, _flushed: bool, _now: bool) -> str:
    """Names are kept and contents are not: what a journal of metadata alone leaves."""
    return "now" if kind == "name" else "flushed"


def chance(dice: random.Random) -> Choice:
    """Any of it, by these dice."""

    def chosen(kind: str, _flushed: bool, _now: bool) -> str:
        return dice.choice(("flushed", "now") if kind == "name" else ("flushed", "now", "half"))

    return chosen


def _names(folder: Path) -> Names:
    return {path.name: path.stat().st_ino for path in folder.iterdir()}
