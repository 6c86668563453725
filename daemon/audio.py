"""From a clip's name to its waveform. Hostile names, files and servers stop here.

folder = FolderAudio(root=Path("runs"))
bucket = BucketAudio(url, key)
async with AudioReader(FirstOf([folder, bucket]), Decoder(max_seconds=1800)) as reader:
    wave = await reader.read(run_id, file_name)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import BinaryIO, Self

from daemon.asr.transcriber import Waveform
from daemon.audio_bucket import BucketAudio
from daemon.audio_folder import FolderAudio
from daemon.audio_source import AudioSource, MissingAudio, UnreadableAudio
from daemon.decode import Decoder

__all__ = ["AudioReader", "AudioSource", "BucketAudio", "FirstOf", "FolderAudio", "MissingAudio", "UnreadableAudio"]


class FirstOf:
    """Asks each source in order: the first that has the clip gives it. Only `MissingAudio` lets the search go on."""

    def __init__(self, sources: Sequence[AudioSource]) -> None:
        self._sources = tuple(sources)

    @asynccontextmanager
    async def open(self, run_id: str, file_name: str) -> AsyncIterator[BinaryIO]:
        """Open the clip where it is found. See `AudioSource.open`."""
        async with AsyncExitStack() as stack:
            yield await self._find(stack, run_id, file_name)

    async def close(self) -> None:
        """Close every source."""
        for source in self._sources:
            await source.close()

    async def _find(self, stack: AsyncExitStack, run_id: str, file_name: str) -> BinaryIO:
        for source in self._sources:
            try:
                return await stack.enter_async_context(source.open(run_id, file_name))
            except MissingAudio:
                continue
        raise MissingAudio


class AudioReader:
    """Reads clips by name. It owns the source and the decoder and closes both."""

    def __init__(self, source: AudioSource, decoder: Decoder) -> None:
        self._source = source
        self._decoder = decoder

    async def read(self, run_id: str, file_name: str) -> Waveform:
        """The clip as mono float32 in [-1, 1] at 16 kHz, at least 160 samples. Calls may overlap.

        Raises:
            MissingAudio: a `TemporaryError`; no source has the clip.
            UnreadableAudio: a `TemporaryError`; the source that has the clip may not be read.
            PermanentError: the reason is a key of `daemon.audio_reasons.REASONS`.
            TemporaryError: a source or the decoder does not work now; see `AudioSource.open` and `Decoder.decode`.
        """
        async with self._source.open(run_id, file_name) as file:
            return await self._decoder.decode(file)

    async def close(self) -> None:
        """End the decoder's children and the connections. Idempotent."""
        await self._decoder.close()
        await self._source.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
