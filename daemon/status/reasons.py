"""Why a clip has no draft, in words. A slug that is not known here is shown as it is."""

from __future__ import annotations

import re

WORDS = {
    "audio-missing": "the audio is not there yet: it is asked for again for ever",
    "audio-unreadable": "the daemon may not read the audio",
    "audio-folder-away": "the run's directory cannot be read",
    "audio-path": "the file name does not name a file inside its run",
    "audio-empty": "the audio file is empty",
    "audio-not-audio": "the file is not a sound file",
    "audio-truncated": "the audio file is cut off or damaged",
    "audio-too-long": "the audio is longer than the limit for one clip",
    "audio-too-large": "the audio is larger than the limit for one clip",
    "audio-too-short": "the audio is shorter than 10 ms",
    "audio-channels": "the audio has too many channels",
    "audio-rate": "the sample rate is outside of what is heard",
    "audio-nonfinite": "the audio holds samples that are not numbers",
    "audio-crashes-decoder": "the audio file crashes the decoder",
    "audio-timeout": "the audio takes too long to decode",
    "storage-denied": "Storage refuses to hand out the audio",
    "model-fails": "the model fails on this clip alone",
    "database-error": "the database refuses its draft, for instance by a trigger",
}
OTHER = "other"
_SLUG = re.compile(r"[a-z][a-z0-9-]{0,39}")


def words(reason: str) -> str:
    """For a person."""
    return WORDS.get(reason, reason)


def slug(reason: object) -> str:
    """As a label, which must not become anything whatever."""
    return reason if isinstance(reason, str) and _SLUG.fullmatch(reason) else OTHER
