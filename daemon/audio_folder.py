"""Clips in local run directories."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from daemon.audio_reasons import refuse
from daemon.audio_source import MAX_BYTES, MissingAudio, UnreadableAudio, safe_segments
from daemon.errors import TemporaryError

_WALK = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_BAD_PATH = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ENAMETOOLONG, errno.EISDIR)


class FolderAudio:
    """Reads `{directory of the run}/{file_name}` and follows no symbolic link below the directory.

    Args:
        runs: run id -> the directory that holds its clips; labels are not unique, so resolve them first.
        root: a directory that holds one directory per run, named by the run's id; for runs that `runs` does not name.
        max_bytes: the longest file.
    """

    def __init__(
        self,
        runs: Mapping[str, Path] = MappingProxyType({}),
        *,
        root: Path | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._runs = dict(runs)
        self._root = root
        self._max_bytes = max_bytes

    @asynccontextmanager
    async def open(self, run_id: str, file_name: str) -> AsyncIterator[BinaryIO]:
        """Open one file. See `AudioSource.open`."""
        segments = safe_segments(run_id, file_name)
        file = await asyncio.to_thread(self._open, run_id, segments)
        with file:
            yield file

    async def close(self) -> None:
        """Nothing is held."""

    def _open(self, run_id: str, segments: tuple[str, ...]) -> BinaryIO:
        if run_id in self._runs:
            top, segments = self._runs[run_id], segments[1:]
        elif self._root is not None:
            top = self._root
        else:
            raise MissingAudio
        try:
            fd = _open_beneath(top, segments)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise MissingAudio from None
            if error.errno in _BAD_PATH:
                refuse("audio-path")
            why = os.strerror(error.errno or 0)
            if error.errno in (errno.EACCES, errno.EPERM):
                raise UnreadableAudio(why) from None
            raise TemporaryError(
                f"A local run directory cannot be read ({why}): look after its disk.", reason="audio-folder-away"
            ) from None
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            os.close(fd)
            refuse("audio-path")
        if facts.st_size > self._max_bytes:
            os.close(fd)
            refuse("audio-too-large")
        return os.fdopen(fd, "rb", buffering=0)


def _open_beneath(top: Path, segments: tuple[str, ...]) -> int:
    """Walk from directory to directory by descriptor, so that no swap of a name on the way can lead outside."""
    here = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for segment in segments[:-1]:
        parent = here
        try:
            here = os.open(segment, _WALK | os.O_DIRECTORY, dir_fd=parent)
        finally:
            os.close(parent)
    try:
        # Without O_NONBLOCK, opening a named pipe waits for its writer.
        return os.open(segments[-1], _WALK | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=here)
    finally:
        os.close(here)
