"""From an audiofolder to clips that can be learned from, one at a time; what cannot is left out with its reason.

DATA/train/metadata.csv    file_name,transcription
DATA/test/metadata.csv     the same, optional: kept for judging
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from daemon.asr.training import TrainingError
from daemon.asr.transcriber import SAMPLE_RATE, Waveform
from daemon.asr.whisper.guards import clean
from daemon.asr.whisper.windows import Windows, spectrograms

_COLUMNS = ("file_name", "transcription")
_MOST_CHANNELS = 8
_SHORTEST = SAMPLE_RATE // 100
"""Samples, 10 ms."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a metadata.csv."""

    file_name: str
    text: str
    path: Path | None
    """None where the name leads out of its folder."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A clip as the model learns it."""

    features: np.ndarray[Any, np.dtype[np.float32]]
    """Log-mel spectrogram, (mels, frames) of the clip's window."""
    labels: list[int]
    """Tokens from the start token to the end token."""
    seconds: float


class LeftOutError(Exception):
    """This clip cannot be learned from; the message is the reason, a slug."""


def read_rows(data: Path, side: str) -> list[Row]:
    """The rows of ``DATA/side/metadata.csv``; none where that side is not there.

    Raises `TrainingError` if the file is not such a table.
    """
    folder = data / side
    file = folder / "metadata.csv"
    try:
        with file.open(encoding="utf-8-sig", newline="") as table:
            lines = csv.DictReader(table)
            if missing := [name for name in _COLUMNS if name not in (lines.fieldnames or ())]:
                raise TrainingError(
                    "data", f"{file} has no column {missing[0]}: its first line must name {' and '.join(_COLUMNS)}."
                )
            return [_row(folder, *(line[name] or "" for name in _COLUMNS)) for line in lines]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError("data", f"{file} cannot be read ({error}): save it as CSV in UTF-8.") from None


def read_audio(path: Path | None, window_s: float) -> Waveform:
    """A row's sound file, of any usual rate, as mono 16 kHz. Raises `LeftOutError`, also if it exceeds the window."""
    import soundfile
    import soxr

    if path is None:
        raise LeftOutError("audio-path")
    if not path.is_file():
        raise LeftOutError("audio-missing")
    if path.stat().st_size == 0:
        raise LeftOutError("audio-empty")
    try:
        with soundfile.SoundFile(path) as sound:
            rate, channels, promised = sound.samplerate, sound.channels, sound.frames
            if channels > _MOST_CHANNELS:
                raise LeftOutError("audio-channels")
            # No more than the window is decoded, whatever the header promises.
            audio = sound.read(round((window_s + 1) * rate), dtype="float32", always_2d=True)
    except (OSError, RuntimeError, ValueError, TypeError, MemoryError):  # libsndfile's errors are RuntimeErrors
        raise LeftOutError("audio-not-audio") from None
    if promised > round(window_s * rate) or len(audio) > round(window_s * rate):
        raise LeftOutError("too-long")
    if len(audio) < promised:
        raise LeftOutError("audio-truncated")
    if not np.isfinite(audio).all():
        raise LeftOutError("audio-nonfinite")
    mono = audio.mean(axis=1)
    wave: Waveform = mono if rate == SAMPLE_RATE else soxr.resample(mono, rate, SAMPLE_RATE)
    if len(wave) < _SHORTEST:
        raise LeftOutError("audio-too-short")
    return wave[: round(window_s * SAMPLE_RATE)]  # resampling may round up by a sample


class Preparer:
    """Makes examples of rows, with the model's own processor."""

    def __init__(self, processor: Any, prompt: dict[str, str], room: int, windows: Windows) -> None:
        """`prompt`: language and task, or nothing for an English-only model. `room`: tokens that the decoder holds."""
        self._extractor = processor.feature_extractor
        self._tokenizer = processor.tokenizer
        self._tokenizer.set_prefix_tokens(language=prompt.get("language"), task=prompt.get("task"))
        self._room = room
        self._windows = windows
        self.window_s = windows.seconds[-1]
        self.mels = int(self._extractor.feature_size)

    def check(self, row: Row) -> tuple[list[int], Waveform]:
        """Labels and audio of a row. Raises `LeftOutError`."""
        text = clean(row.text)
        if not text:
            raise LeftOutError("empty-text")
        labels: list[int] = self._tokenizer(text).input_ids
        if len(labels) > self._room:
            raise LeftOutError("text-too-long")
        return labels, read_audio(row.path, self.window_s)

    def example(self, row: Row) -> Example:
        """The row as the model learns it. Raises `LeftOutError`."""
        labels, audio = self.check(row)
        features = spectrograms(self._extractor, [audio], self._windows.samples(len(audio)))[0].numpy()
        return Example(features, labels, len(audio) / SAMPLE_RATE)


def spread(rows: list[Row], most: int) -> Iterator[Row]:
    """At most so many rows, evenly over all of them: neighbours are often of one recording."""
    for number in range(min(most, len(rows))):
        yield rows[number * len(rows) // min(most, len(rows))]


def _row(folder: Path, file_name: str, text: str) -> Row:
    name = PurePosixPath(file_name)
    inside = bool(name.parts) and not name.is_absolute() and ".." not in name.parts and "\0" not in file_name
    return Row(file_name, text, folder / name if inside else None)
