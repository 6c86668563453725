"""What a training looks like in a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from daemon.asr.training import Plan, Progress, TrainingResult
from daemon.cli.bars import Bars
from daemon.cli.plain import text
from daemon.cli.train_checks import nearest
from daemon.learning.reasons import in_words

if TYPE_CHECKING:
    from daemon.cli.train_rates import Measured

PHASES: Mapping[str, str] = {
    "features": "reading clips",
    "training": "training",
    "evaluating": "trying held-out clips",
    "saving": "training",
}

NOTHING_HELD_OUT = "no clip: how good the model is will not be known"


class Show:
    """One bar for the clips that are read, one for the steps, one for the clips that base and model hear."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars

    def progress(self, told: Progress) -> None:
        """Show what a training or a plan tells."""
        bar = "features" if told.phase == "features" else "training"
        left_s = told.seconds_left if told.step < told.steps else None
        self._bars.show(PHASES[told.phase], told.step, told.steps, bar=bar, note=_note(told), left_s=left_s)

    def comparison(self, done: int, total: int) -> None:
        """Show how many clips base and model have heard together."""
        self._bars.show("hearing test", done, total)


@contextmanager
def shown() -> Iterator[Show]:
    """Bars while the block lasts."""
    with Bars(Console()) as bars:
        yield Show(bars)


def show_plan(plan: Plan, out: Path, base: str) -> None:
    """What would be done."""
    table = Table.grid(padding=(0, 2))
    table.add_row("train", text(f"{plan.clips:,} clips, {plan.seconds / 60:.1f} minutes"))
    table.add_row("left out", text(in_words(plan.left_out) or "none"))
    table.add_row("test", text(f"{plan.held_out:,} clips" if plan.held_out else NOTHING_HELD_OUT))
    table.add_row("base", text(base))
    table.add_row("steps", text(f"{plan.steps:,}"))
    table.add_row("device", text(f"{plan.device}, {plan.precision}"))
    table.add_row("disk", text(f"{shutil.disk_usage(nearest(out)).free / 1e9:,.1f} GB free for {out}"))
    Console(soft_wrap=True).print(table)
    say("Nothing was trained or written.")


def show_result(result: TrainingResult, batch_size: int) -> None:
    """What was trained. `batch_size`: as it was asked for."""
    on = f"{result.clips:,} clips ({result.seconds / 60:.1f} minutes)"
    before = f", going on from step {result.resumed_from:,}" if result.resumed_from else ""
    shared = f", {result.processes} processes" if result.processes > 1 else ""
    say(f"Trained {result.steps:,} steps on {on}{before}: {result.device}, {result.precision}{shared}.")
    if result.batch_size < batch_size and not shared:
        say(f"Its memory ran out: {result.batch_size} clips were on it at once, and a step was as large as before.")
    if result.left_out:
        say(f"Left out of train: {in_words(result.left_out)}.")


def show_rates(measured: Measured | str, base: str) -> None:
    """The word error rates before and after, or why they are not known."""
    if isinstance(measured, str):
        say(measured)
        return
    table = Table("", "before", "after", title=f"Heard on {measured.clips:,} clips of test", title_justify="left")
    for name, before, after in (
        ("word error rate, normalised", measured.before.wer, measured.after.wer),
        ("word error rate, as written", measured.before.wer_raw, measured.after.wer_raw),
        ("character error rate", measured.before.cer, measured.after.cer),
    ):
        table.add_row(name, f"{before:.1%}", f"{after:.1%}")
    table.caption = text(f"before: {base}")
    Console().print(table)
    if measured.left_out:
        say(f"Left out of test: {in_words(measured.left_out)}.")


def say(sentence: str) -> None:
    """A line, unbroken however long it is: it may hold a command to copy."""
    Console(soft_wrap=True).print(text(sentence))


def _note(told: Progress) -> str:
    """Loss and word error rate, as far as they are told."""
    parts = [f"loss {told.loss:.3f}"] if told.loss is not None else []
    parts += [f"WER {told.wer:.1%}"] if told.wer is not None else []
    return ", ".join(parts)
