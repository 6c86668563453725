"""`ambara demo`: a team's whole round, with nothing but this machine."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from daemon.cli.bars import Bars
from daemon.errors import ConfigurationError

if TYPE_CHECKING:
    from daemon.local.demo.story import Story

console = Console(highlight=False)


def demo(
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write what happened, clip by clip, to this file.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=3, help="How often people correct and the daemon learns.")] = 1,
    clips: Annotated[
        int, typer.Option(min=6, max=400, help="How many clips stay pending to the end, beside those corrected.")
    ] = 40,
) -> None:
    """Start an embedded Supabase and the daemon; clips arrive, people correct some, the daemon learns from them.

    It fine-tunes a small Whisper, judges it on held-out tapes, swaps it in and drafts everything pending again: a few
    minutes. It ends by itself, leaves nothing running, and exits with 0 if every round made the drafts better and no
    word of a person was changed.

    [bold]Examples[/bold]

        ambara demo

        ambara demo --rounds 3 --json story.json
    """
    try:
        from daemon.local.demo.play import play
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"The demo needs the extra `local` (module {error.name} is missing): pip install 'ambara[local]'."
        ) from None

    show = _Terminal()
    with tempfile.TemporaryDirectory(prefix="ambara-demo-") as folder:
        # PostgreSQL may run under another user when this one is root.
        Path(folder).chmod(0o711)
        with show.bars:
            story = asyncio.run(play(rounds, clips, Path(folder), show))
    _conclude(story)
    if json_file:
        json_file.write_text(json.dumps(story.record(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        console.print(f"Written to {json_file}")
    if not story.well():
        raise typer.Exit(1)


class _Terminal:
    """Tells the story in a terminal, or as plain lines where there is none."""

    def __init__(self) -> None:
        self.bars = Bars(console, line=self.say, transient=True)

    def phase(self, title: str) -> None:
        self.bars.clear()
        console.print(Text(title, style="bold"))

    def say(self, line: str) -> None:
        console.print(Text(f"  {line}", style="dim"))

    def progress(self, what: str, done: int, total: int) -> None:
        self.bars.show(what, done, total)


def _conclude(story: Story) -> None:
    console.print()
    console.print(_rounds(story))
    console.print(_examples(story))
    live = next((each for each in reversed(story.rounds) if each.stage == "live"), None)
    if live:
        console.print(Text(f"Version {live.version} is live: {live.reason}."))
    console.print(
        f"{story.words_changed()} human words changed in {len(story.people())} rows that belong to people."
        if story.words_changed() == 0
        else f"{story.words_changed()} rows of people were CHANGED."
    )
    console.print("Seconds: " + ", ".join(f"{name} {value:g}" for name, value in story.seconds.items()) + ".")


def _rounds(story: Story) -> Table:
    table = Table(title="Word error rate of the drafts", title_justify="left")
    for heading in ("round", "corrected", "held-out tapes", "waiting clips", "version", "drafted again", "seconds"):
        table.add_column(heading)
    for each in story.rounds:
        judged = each.held_out
        table.add_row(
            str(each.number),
            f"{each.corrections} clips",
            f"{_percent(judged['live_wer'])} → {_percent(judged['candidate_wer'])}" if judged else "?",
            f"{_percent(each.waiting_before)} → {_percent(each.waiting_after)}",
            f"{each.version} {each.stage}",
            f"{each.redrafted} of {each.pending} pending",
            f"{each.seconds:.0f}",
        )
    return table


def _examples(story: Story) -> Table:
    table = Table(title="What was said, and how it was drafted (some of it)", title_justify="left")
    for heading in ("said", "first draft", "last draft"):
        table.add_column(heading)
    for clip in story.waiting()[:8]:
        if clip.drafts:
            table.add_row(Text(clip.reference), Text(clip.drafts[0]["text"]), Text(clip.drafts[-1]["text"]))
    return table


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"
