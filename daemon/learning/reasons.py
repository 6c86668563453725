"""Why a corrected clip is not learned from, in words that follow a count: "3 whose audio file is missing"."""

from __future__ import annotations

from collections.abc import Mapping

LEFT_OUT: Mapping[str, str] = {
    "empty-text": "without text",
    "text-too-long": "whose text is far longer than half a minute of speech",
    "undecided": "of recordings that had no side yet",
    "changed-sides": "of recordings on the other side than they were on in an earlier run",
    "changed-since": "changed, or no longer corrected, since they were counted",
    "chapter": "that are whole chapters, to be split first",
    "split-record": "whose text is the record of a split chapter",
    "audio-missing": "whose audio file is missing",
    "audio-path": "whose file name leads out of their run",
    "audio-empty": "whose audio file is empty",
    "audio-not-audio": "whose file is no sound file",
    "audio-truncated": "whose audio file is cut off or damaged",
    "audio-too-long": "too long to be one clip",
    "audio-too-large": "whose audio file is too large",
    "audio-channels": "with more than 8 channels",
    "audio-rate": "with a sample rate outside 4 to 192 kHz",
    "audio-nonfinite": "with samples that are not numbers",
    "audio-too-short": "shorter than 10 ms",
    "audio-crashes-decoder": "whose audio file crashes the decoder",
    "audio-timeout": "whose audio took too long to decode",
    "storage-unavailable": "whose audio the storage does not deliver, though it delivers others",
    "too-long": "longer than the model hears at once",
    "no-audio": "with words and without a sound",
    "audio-in-held-out": "kept from training: the same audio is held out",
    "text-in-held-out": "kept from training: the same text, or nearly, is held out",
}
"""Reason -> words."""


def in_words(counts: Mapping[str, int]) -> str:
    """All reasons with their counts, the most frequent first: "3 whose audio file is missing, 1 without text"."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {LEFT_OUT.get(reason, reason)}" for reason, count in ordered if count)
