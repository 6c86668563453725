"""What every place that holds audio promises, and which names may reach it."""

from __future__ import annotations

import unicodedata
from contextlib import AbstractAsyncContextManager
from typing import BinaryIO, Protocol
from urllib.parse import unquote

from daemon.audio_reasons import refuse
from daemon.errors import TemporaryError

MAX_BYTES = 512 << 20
"""Half an hour of 48 kHz stereo at 24 bits is 494 MiB."""


class MissingAudio(TemporaryError):  # noqa: N818 - the absence is an ordinary state
    """The clip's row is there and its audio is not: uploads may come after the row, deletions before it."""

    def __init__(self) -> None:
        super().__init__("The clip has no audio file yet: upload it, or discard the clip.", reason="audio-missing")


class UnreadableAudio(TemporaryError):  # noqa: N818 - likewise
    """The clip's audio is there and the daemon may not read it: somebody has to let it."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"An audio file in a local run directory cannot be read ({why}): "
            "let the daemon's user read the directory and its files.",
            reason="audio-unreadable",
        )


class AudioSource(Protocol):
    """A place that holds clips."""

    def open(self, run_id: str, file_name: str) -> AbstractAsyncContextManager[BinaryIO]:
        """Open a clip's bytes: a regular file, at most `max_bytes` long, that lives as long as the context.

        What was checked is what is read: the descriptor stays the same whatever happens to the name meanwhile.

        Raises (on entering the context):
            MissingAudio: no such clip here.
            UnreadableAudio: it may not be read.
            PermanentError: ``audio-path`` or ``audio-too-large``.
            TemporaryError: the place does not answer as it should; the reason tells how.
        """
        ...

    async def close(self) -> None:
        """Let go of connections. Idempotent."""
        ...


def safe_segments(run_id: str, file_name: str) -> tuple[str, ...]:
    """Split a clip's name into path segments: the run's first, then the file's.

    Raises:
        PermanentError: ``audio-path``; the name is absolute, climbs, is empty, overlong or not printable, now or after
            somebody on the way has undone percent-encoding once or twice, or made plain letters of odd ones.
    """
    once = unquote(file_name)
    coded = (file_name, once, unquote(once))
    names = (*coded, *(unicodedata.normalize("NFKC", name) for name in coded))  # two full-width dots become ".."
    if not (_is_segment(run_id) and run_id == unquote(run_id)):
        refuse("audio-path")
    if not all(_is_segment(segment) for name in names for segment in name.split("/")):
        refuse("audio-path")
    return (run_id, *file_name.split("/"))


def _is_segment(text: str) -> bool:
    if text in ("", ".", "..") or "/" in text or "\\" in text:
        return False
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in text):
        return False
    return len(text.encode()) <= 255
