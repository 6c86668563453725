"""The verdicts on a clip's audio, in words."""

from __future__ import annotations

from typing import NoReturn

from daemon.errors import PermanentError

REASONS = {
    "audio-path": "The clip's file name does not name a regular file inside its run: rename the file and the clip.",
    "audio-empty": "The audio file is empty: record or upload the clip again.",
    "audio-not-audio": "The file is not a sound file: upload the clip as WAV, FLAC, Ogg or MP3.",
    "audio-truncated": "The audio file is cut off or damaged: upload the clip again.",
    "audio-too-long": "The audio is longer than the limit for one clip: split the clip.",
    "audio-too-large": "The audio is larger than the limit for one clip: split it, or save it as 16 kHz mono WAV.",
    "audio-channels": "The audio has more than 8 channels: save the clip as mono.",
    "audio-rate": "The sample rate of the audio is outside 4 to 192 kHz: save the clip at 16 kHz.",
    "audio-nonfinite": "The audio holds samples that are not numbers: save the clip again as 16-bit WAV.",
    "audio-too-short": "The audio is shorter than 10 ms: record the clip again, or discard it.",
    "audio-crashes-decoder": "The audio file crashes the decoder: save the clip again as 16-bit WAV.",
    "audio-timeout": "The audio takes too long to decode: save the clip again as 16-bit WAV.",
}
"""Every verdict on a file, and the sentence for the person who owns the clip."""


def refuse(reason: str) -> NoReturn:
    """Raise the `PermanentError` of a key of `REASONS`. The clip's name is not echoed: it may hold terminal codes."""
    raise PermanentError(REASONS[reason], reason=reason) from None
