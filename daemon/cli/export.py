"""`ambara export`: what people corrected, as a data set that `ambara train` and others can read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from rich.console import Console

from daemon.cli.bars import Bars
from daemon.cli.context import settings_of
from daemon.errors import ConfigurationError, PermanentError

if TYPE_CHECKING:
    from daemon.config import Settings
    from daemon.learning.audiofolder import Frozen

WORKER = "export"
"""It claims no clip, so its name stands nowhere."""


def export(
    context: typer.Context,
    output: Annotated[Path, typer.Option("-o", "--output", help="A directory that is new, or empty.")],
    labels: Annotated[
        list[str] | None, typer.Option("-l", "--label", help="Runs with this label (repeatable).")
    ] = None,
    runs: Annotated[list[UUID] | None, typer.Option("--run", help="The run with this id (repeatable).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The counts as JSON, for a program.")] = False,
) -> None:
    """Write the corrected clips of some runs as an audiofolder.

    DIR/train and DIR/test each hold a metadata.csv (file_name, transcription) and 16 kHz WAVs named by the clip's id;
    DIR/manifest.json says where each clip is from. The held-out recordings are those of the daemon, the same in every
    export, and what would give them away is kept out of train. What is left out is counted with its reason.

    [bold]Examples[/bold]

        ambara export -l sermon -l psalms -o data

        ambara export --run 3f0c… -o data --json
    """
    settings = settings_of(context)
    if not labels and not runs:
        raise ConfigurationError("Name the runs to export, with --label or --run.")
    from daemon.cli import export_view

    console = Console()
    with Bars(console) as bars:

        def show(done: int, total: int) -> None:
            if not as_json:
                bars.show("reading", done, total)

        chosen = [str(run) for run in runs or []]
        frozen, both_sides = asyncio.run(_export(settings, output, labels or [], chosen, show))
    said = export_view.notes(frozen, both_sides=both_sides)
    if as_json:
        typer.echo(json.dumps(export_view.counts(frozen, output, said), indent=2))
    else:
        export_view.show(frozen, output, said, console)


async def _export(
    settings: Settings,
    output: Path,
    labels: Sequence[str],
    runs: Sequence[str],
    progress: Callable[[int, int], None],
) -> tuple[Frozen, bool]:
    """Write the data set. Returns it, and whether the project has recordings on both sides."""
    from daemon.cli.export_directory import export_directory
    from daemon.cli.runs import named_runs
    from daemon.clips import ClipStore
    from daemon.database import Database
    from daemon.learning.freezing import freeze
    from daemon.learning.ledger import Ledger
    from daemon.learning.reasons import in_words
    from daemon.learning.sides import decide_sides
    from daemon.parts import audio_reader, run_directories
    from daemon.supabase_client import client_for, http_client

    async with AsyncExitStack() as stack:
        half = stack.enter_context(export_directory(output))
        http = await stack.enter_async_context(http_client())
        client = await client_for(settings.supabase, http)
        store = ClipStore(client, WORKER)
        await store.check(settings.supabase.bucket)
        chosen = await named_runs(store, labels, runs)
        ledger = Ledger(Database(client), WORKER, settings.supabase.bucket)
        both_sides = await decide_sides(ledger, settings.training.held_out_share)
        samples, left_out = await ledger.exportable(chosen)
        directories = await run_directories(store, settings.audio.run_dirs)
        reader = await stack.enter_async_context(audio_reader(settings.supabase, settings.audio, directories))
        frozen = await freeze(samples, reader.read, half, left_out=left_out, progress=progress, both_sides=False)
        if not frozen.audio:
            why = in_words(frozen.left_out) or "nobody has corrected one"
            raise PermanentError(f"No clip of these runs can be exported: {why}.", reason="nothing-to-export")
    return frozen, both_sides
