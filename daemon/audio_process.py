"""The parent's end of the decoder's child process. Its answers are not trusted: every length is bounded."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from daemon.asr.transcriber import Waveform
from daemon.audio_reasons import REASONS, refuse

HEADER = struct.Struct(">cI")
MAX_FRAME_BYTES = 1 << 20


class ChildGone(Exception):  # noqa: N818 - a state, raised to leave a loop
    """The child ended, or answered what it must not."""


@contextmanager
def _closed_by_an_error(end: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        end.close()
        raise


class ChildProcess:
    """One process running `audio_child.py`, and our end of its socket."""

    def __init__(self, program: Path, arguments: list[str]) -> None:
        """Raises `OSError` where no process can be started."""
        self._socket, theirs = socket.socketpair()
        with theirs, _closed_by_an_error(self._socket):
            self._process = subprocess.Popen(  # noqa: S603 - our own program and numbers
                # -P keeps the program's folder off the import path, where its neighbours would shadow packages.
                [sys.executable, "-P", str(program), *arguments],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                cwd="/",
                start_new_session=True,  # Ctrl-C in a terminal is for the daemon, which finishes its batch
            )
        self._socket.setblocking(False)
        self.pid = self._process.pid

    async def ready(self) -> None:
        if await self._frame() != (b"R", bytearray()):
            raise ChildGone

    async def decode(self, fd: int, max_samples: int) -> Waveform:
        heard = bytearray()  # grows in place: pieces that are joined at the end would take twice the room
        try:
            socket.send_fds(self._socket, [b"D"], [fd])  # the child waits for it: one byte always fits
        except OSError:
            raise ChildGone from None
        while True:
            kind, payload = await self._frame()
            if kind == b"W" and payload and len(payload) % 4 == 0:
                if len(heard) + len(payload) > 4 * max_samples or not np.isfinite(_samples(payload)).all():
                    raise ChildGone
                heard += payload
            elif kind == b"E" and heard:
                return _samples(heard)
            elif kind == b"X" and (reason := payload.decode("ascii", "replace")) in REASONS:
                refuse(reason)
            else:
                raise ChildGone

    def kill(self) -> None:
        """Whoever waits for an answer sees the end of the stream."""
        self._process.kill()

    async def end(self) -> int:
        """Kill, reap, and return the exit status as `subprocess` counts it: -N is signal N."""
        self.kill()
        self._socket.close()
        return await asyncio.to_thread(self._process.wait)

    async def _frame(self) -> tuple[bytes, bytearray]:
        kind, length = HEADER.unpack(await self._receive(HEADER.size))
        if length > MAX_FRAME_BYTES:
            raise ChildGone
        return kind, await self._receive(length)

    async def _receive(self, size: int) -> bytearray:
        loop = asyncio.get_running_loop()
        content = bytearray(size)
        rest = memoryview(content)
        while rest:
            try:
                count = await loop.sock_recv_into(self._socket, rest)
            except OSError:
                raise ChildGone from None
            if count == 0:
                raise ChildGone
            rest = rest[count:]
        return content


def _samples(content: bytearray) -> Waveform:
    return np.frombuffer(content, np.float32)


def _environment() -> dict[str, str]:
    """What the interpreter and its libraries need to start, and no credential."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
