"""Data sets on disk, as `ambara export` writes them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from daemon.local.speech import Utterance, wav_bytes


def write_side(data: Path, side: str, clips: Sequence[Utterance]) -> Path:
    """Speech as one side of a data set. Returns the data set."""
    folder = data / side / "clips"
    folder.mkdir(parents=True)
    for number, clip in enumerate(clips):
        (folder / f"{number}.wav").write_bytes(wav_bytes(clip.audio))
    write_table(data, side, ((f"clips/{number}.wav", clip.text) for number, clip in enumerate(clips)))
    return data


def write_table(data: Path, side: str, rows: Iterable[tuple[str, str]]) -> None:
    """The metadata.csv of one side, whatever it says."""
    (data / side).mkdir(parents=True, exist_ok=True)
    with (data / side / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "transcription"])
        table.writerows(rows)
