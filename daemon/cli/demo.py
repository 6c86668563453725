"""`ambara demo`: watch pending clips being drafted, with nothing but this machine."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from daemon.errors import ConfigurationError

if TYPE_CHECKING:
    from daemon.local.demo import Story

console = Console(highlight=False)


def demo(
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write what happened, clip by clip, to this file.")
    ] = None,
    clips: Annotated[int, typer.Option(min=6, max=400, help="How many clips are spoken and drafted.")] = 40,
) -> None:
    """Start an embedded Supabase and the daemon, insert clips, and watch them being drafted.

    It ends by itself, leaves nothing running, and exits with 0 if every clip that wanted a draft got one and no
    person's row was touched.

    [bold]Examples[/bold]

        ambara demo

        ambara demo --clips 100 --json story.json
    """
    try:
        from daemon.local.demo import play
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"The demo needs the extra `local` (module {error.name} is missing): pip install 'ambara[local]'."
        ) from None

    show = _Terminal()
    with tempfile.TemporaryDirectory(prefix="ambara-demo-") as folder:
        # PostgreSQL may run under another user when this one is root.
        Path(folder).chmod(0o711)
        with show.bar:
            story = asyncio.run(play(clips, Path(folder), show))
    _conclude(story)
    if json_file:
        json_file.write_text(json.dumps(story.record(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        console.print(f"Written to {json_file}")
    if not all(clip.well for clip in story.clips):
        raise typer.Exit(1)


class _Terminal:
    """Tells the story in a terminal, or as plain lines where there is none."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bar = Progress(*columns, console=console, transient=True)
        self._task = self.bar.add_task("drafted", visible=False)

    def phase(self, title: str) -> None:
        self.bar.update(self._task, visible=False)
        console.print(Text(title, style="bold"))

    def say(self, line: str) -> None:
        console.print(Text(f"  {line}", style="dim"))

    def progress(self, drafted: int, total: int) -> None:
        self.bar.update(self._task, completed=drafted, total=total, visible=True)
        if drafted == total:
            self.say(f"{drafted} of {total} drafted")


def _conclude(story: Story) -> None:
    drafts = Table(title="What was said, and what was drafted (some of it)", title_justify="left")
    for heading in ("said", "drafted", "log-probability"):
        drafts.add_column(heading)
    for clip in story.spoken()[:8]:
        drafts.add_row(Text(clip.reference), Text(clip.draft["text"]), f"{clip.draft['confidence'] or 0:.2f}")
    people = Table(title="What belongs to people", title_justify="left")
    for heading in ("row of", "its text", "touched"):
        people.add_column(heading)
    for clip in story.clips:
        if not clip.eligible:
            text = clip.after["corrected_transcription"] or clip.after["draft_transcription"] or ""
            people.add_row(clip.written_by, Text(text), "yes" if clip.touched else "no")
    console.print()
    console.print(drafts)
    console.print(people)
    eligible = [clip for clip in story.clips if clip.eligible]
    touched = sum(clip.touched for clip in story.clips if not clip.eligible)
    console.print(
        f"{sum(bool(c.draft) for c in eligible)} of {len(eligible)} clips drafted, word error rate "
        f"{story.word_error_rate():.1%}; {touched} rows of people touched."
    )
    console.print("Seconds: " + ", ".join(f"{name} {value:g}" for name, value in story.seconds.items()) + ".")
