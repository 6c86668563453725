"""What an export came to, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from daemon.learning.audiofolder import Frozen
from daemon.learning.leaks import SAME_AUDIO
from daemon.learning.reasons import LEFT_OUT

ONE_RECORDING = "All corrections of the project are of one recording: nothing is held out yet, so test/ is empty."
NONE_HELD_OUT = "None of these recordings is held out: test/ is empty."
ALL_HELD_OUT = "All of these recordings are held out from training, for good: train/ is empty."


def notes(frozen: Frozen, *, both_sides: bool) -> list[str]:
    """Sentences about what a person may not expect. `both_sides`: whether the project has held-out recordings."""
    found = []
    if not frozen.held_out.clips:
        found.append(NONE_HELD_OUT if both_sides else ONE_RECORDING)
    if not frozen.train.clips:
        found.append(ALL_HELD_OUT)
    if same := frozen.notes.get(SAME_AUDIO):
        found.append(
            f"{same} clips in train/ share their audio with a clip that has other words: one of them is wrong."
        )
    return found


def counts(frozen: Frozen, output: Path, said: list[str]) -> dict[str, Any]:
    """The same as JSON."""
    sides = {"train": asdict(frozen.train), "test": asdict(frozen.held_out)}
    return {"directory": str(output)} | sides | {"left_out": dict(frozen.left_out), "notes": said}


def show(frozen: Frozen, output: Path, said: list[str], console: Console) -> None:
    """Print the tables."""
    sides = Table("", "clips", "minutes", "recordings", title=f"Exported to {output}", title_justify="left")
    for name, amount in (("train", frozen.train), ("test (held out)", frozen.held_out)):
        sides.add_row(name, str(amount.clips), f"{amount.seconds / 60:.1f}", str(amount.recordings))
    console.print(sides)
    if frozen.left_out:
        table = Table("clips", "why", "reason", title="Left out", title_justify="left")
        for reason, count in sorted(frozen.left_out.items(), key=lambda item: (-item[1], item[0])):
            table.add_row(str(count), LEFT_OUT.get(reason, ""), reason)
        console.print(table)
        if frozen.refused:
            console.print("manifest.json names the clips, under refused.")
    for sentence in said:
        console.print(sentence)
