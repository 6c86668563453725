"""What training must not see, because the judge will ask it: held-out audio and held-out sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from daemon.asr.metrics import normalise
from daemon.learning.audiofolder import Entry

AUDIO = "audio-in-held-out"
TEXT = "text-in-held-out"
SAME_AUDIO = "same-audio-other-words"

FEWEST_WORDS = 4
"""Shorter texts, such as an amen, recur in every recording and tell nothing of the others."""
LIKE_PERCENT = 95
LIKE_CHARACTERS = 40
"""In shorter texts, 5 % is less than a word: other sentences of the same pattern would be taken for copies."""
_CHUNK = 256


def leaks(training: Sequence[Entry], held_out: Sequence[Entry]) -> dict[str, str]:
    """Clip id -> reason, for the training clips that would give a held-out one away.

    Audio counts as the same when every sample is; texts when they are equal after `normalise` (from four words on), or
    alike by 95 % (where the held-out one has 40 characters or more). 10,000 texts against 1,000 take about two seconds
    of one core.
    """
    sounds = {entry.audio_sha256 for entry in held_out}
    asked = {normalise(entry.text) for entry in held_out}
    texts = {entry.clip_id: normalise(entry.text) for entry in training}
    known = {text for text in texts.values() if text in asked and len(text.split()) >= FEWEST_WORDS}
    known |= _alike(sorted(set(texts.values()) - known), sorted(asked))
    found = {clip_id: TEXT for clip_id, text in texts.items() if text in known}
    return found | {entry.clip_id: AUDIO for entry in training if entry.audio_sha256 in sounds}


def notes(training: Sequence[Entry]) -> dict[str, int]:
    """What is trained on and still worth a word: clips of one and the same audio with different texts."""
    pairs = {(entry.audio_sha256, normalise(entry.text)) for entry in training}
    texts = Counter(audio for audio, _ in pairs)
    count = sum(texts[entry.audio_sha256] > 1 for entry in training)
    return {SAME_AUDIO: count} if count else {}


def _alike(texts: Sequence[str], asked: Sequence[str]) -> set[str]:
    """Those of `texts` that nearly are one of `asked`."""
    import numpy as np
    from rapidfuzz import fuzz
    from rapidfuzz.process import cdist

    long = [text for text in asked if len(text) >= LIKE_CHARACTERS]
    found: set[str] = set()
    for chunk in _chunks(texts if long else []):
        scores = cdist(chunk, long, scorer=fuzz.ratio, score_cutoff=LIKE_PERCENT, dtype=np.uint8)
        found.update(text for text, row in zip(chunk, scores, strict=True) if row.any())
    return found


def _chunks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Bounds the memory of the table of scores."""
    return (texts[i : i + _CHUNK] for i in range(0, len(texts), _CHUNK))
