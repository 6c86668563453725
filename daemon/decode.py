"""Sound files to waveforms, outside this process: what kills the decoder kills one clip and not the daemon."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from daemon.asr.transcriber import SAMPLE_RATE, Waveform
from daemon.audio_process import ChildGone, ChildProcess
from daemon.audio_reasons import refuse
from daemon.errors import PermanentError, TemporaryError

CHILD = Path(__file__).with_name("audio_child.py")


class Decoder:
    """Decodes in persistent child processes, `children` at a time and in the order of the calls.

    Args:
        max_seconds: the longest clip.
        children: how many files are decoded at once; each child keeps about 40 MB.
        memory_bytes: address space of a child. It takes 110 MB when idle, and what it adds for a file does not grow
            with the file.
        cpu_seconds: processor time for one file.
        timeout_s: wall-clock time for one file.
    """

    def __init__(
        self,
        *,
        max_seconds: float = 1800.0,
        children: int = 1,
        memory_bytes: int = 512 << 20,
        cpu_seconds: int = 60,
        timeout_s: float = 120.0,
        program: Path = CHILD,
    ) -> None:
        self._program = program
        self._arguments = [str(SAMPLE_RATE), str(max_seconds), str(memory_bytes), str(cpu_seconds)]
        self._max_samples = int((max_seconds + 1) * SAMPLE_RATE)
        self._timeout_s = timeout_s
        self._size = children
        self._children: set[ChildProcess] = set()
        self._closed = False
        self._places: asyncio.Queue[ChildProcess | None] = asyncio.Queue()
        for _ in range(children):
            self._places.put_nowait(None)

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that live now."""
        return tuple(child.pid for child in self._children)

    async def decode(self, audio: BinaryIO) -> Waveform:
        """Decode an open regular file from its beginning.

        Raises:
            PermanentError: the file is no clip; the reason is a key of `daemon.audio_reasons.REASONS`.
            TemporaryError: ``audio-timeout`` (the wall clock ran out: the machine or its disk is slow),
                ``decoder-unavailable`` (no child starts) or ``decoder-closed``.
        """
        place = await self._places.get()
        try:
            for _ in range(2):
                place = place or await self._start()
                try:
                    return await self._decode_in(place, audio.fileno())
                except ChildGone:
                    child, place = place, None
                    if await self._end(child) == -signal.SIGXCPU:
                        refuse("audio-timeout")
            refuse("audio-crashes-decoder")
        finally:
            self._places.put_nowait(place if place in self._children else None)

    async def _decode_in(self, child: ChildProcess, fd: int) -> Waveform:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await child.decode(fd, self._max_samples)
        except (PermanentError, ChildGone):
            raise
        except TimeoutError:
            await self._end(child)
            raise TemporaryError(
                "The audio was not decoded in time: look whether the machine or its disk is overloaded.",
                reason="audio-timeout",
            ) from None
        except BaseException:  # cancelled: an answer that nobody reads is on its way
            await self._end(child)
            raise

    async def _start(self) -> ChildProcess:
        if self._closed:
            raise TemporaryError("The decoder is closed because the program ends.", reason="decoder-closed")
        try:
            child = ChildProcess(self._program, self._arguments)
        except OSError as error:  # too many processes or open files, no memory, or its Python is gone
            raise TemporaryError(
                f"The audio decoder does not start ({error.strerror}): look after the machine's memory and limits.",
                reason="decoder-unavailable",
            ) from None
        self._children.add(child)
        try:
            async with asyncio.timeout(self._timeout_s):
                await child.ready()
        except (ChildGone, TimeoutError):
            status = await self._end(child)
            raise TemporaryError(
                f"The audio decoder does not start (exit status {status}): run "
                "`python -c 'import numpy, soundfile, soxr'` to see whether a package is missing.",
                reason="decoder-unavailable",
            ) from None
        except BaseException:
            await self._end(child)
            raise
        return child

    async def _end(self, child: ChildProcess) -> int:
        self._children.discard(child)
        return await child.end()

    async def close(self) -> None:
        """End the children. Calls in flight raise ``decoder-closed``. Idempotent."""
        self._closed = True
        for child in self._children:
            child.kill()
        places = [await self._places.get() for _ in range(self._size)]
        for child in self._children.intersection(places):
            await self._end(child)
        for _ in places:
            self._places.put_nowait(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
