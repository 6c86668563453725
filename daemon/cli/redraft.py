"""`ambara re-draft`: drafts by a model that a person names, for runs that a person names."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from rich.console import Console

from daemon.cli.bars import Bars
from daemon.cli.context import settings_of
from daemon.cli.runs import named_runs
from daemon.errors import ConfigurationError

if TYPE_CHECKING:
    from daemon.config import Settings
    from daemon.ports import Tally

console = Console()


def redraft(
    context: typer.Context,
    model: Annotated[str, typer.Option("-m", "--model", help="Model directory or hub id.")],
    directory: Annotated[
        Path | None, typer.Option("-d", "--directory", help="Local directory of the run that holds the WAVs.")
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option("-l", "--label", help="Runs with this label (repeatable).")
    ] = None,
    runs: Annotated[list[UUID] | None, typer.Option("--run", help="The run with this id (repeatable).")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cuda, mps or cpu.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be drafted, and change nothing.")] = False,
) -> None:
    """Draft the eligible clips of some runs with MODEL, whatever model is live.

    The same rules hold as for the daemon: only pending clips that no person has touched. Clips that are not in the
    directory are read from the bucket.

    [bold]Examples[/bold]

        ambara re-draft -m models/mg-2 -d ~/runs/sermon -l sermon

        ambara re-draft -m openai/whisper-small --run 3f0c… --dry-run
    """
    settings = settings_of(context)
    if not labels and not runs:
        raise ConfigurationError("Name the runs to draft again, with --label or --run.")
    if directory is not None and not directory.is_dir():
        raise ConfigurationError(f"There is no directory {directory}.")
    update: dict[str, str] = {"base": model} | ({"device": device} if device else {})
    settings = settings.model_copy(update={"model": settings.model.model_copy(update=update)})
    asyncio.run(_redraft(settings, directory, labels or [], [str(run) for run in runs or []], dry_run=dry_run))


async def _redraft(
    settings: Settings, directory: Path | None, labels: Sequence[str], runs: Sequence[str], *, dry_run: bool
) -> None:
    from structlog.contextvars import bound_contextvars

    from daemon import logs
    from daemon.app import new_worker
    from daemon.cli.redraft_card import Card
    from daemon.clips import ClipStore
    from daemon.drafter import Drafter
    from daemon.parts import audio_reader, model_maker, one_run, pipeline_settings, run_directories
    from daemon.pipeline import Pipeline
    from daemon.ports import Request
    from daemon.supabase_client import client_for, http_client

    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(http_client())
        worker = new_worker()
        stack.enter_context(bound_contextvars(worker=worker))
        stack.callback(logs.settle, at_the_end=True)
        client = await client_for(settings.supabase, http)
        store = ClipStore(client, worker, useful_first=settings.drafting.useful_first)
        await store.check(settings.supabase.bucket)
        chosen = await named_runs(store, labels, runs)
        if directory and len(chosen) > 1:
            raise ConfigurationError(one_run(len(chosen), directory))

        drafter = Drafter()
        stack.callback(drafter.close)
        with console.status(f"Loading {settings.model.base}"):
            loaded = await drafter.load(model_maker(settings.model))
        eligible = await store.count_manual(loaded.fingerprint, chosen)
        if dry_run:
            console.print(f"{eligible} clips would be drafted by {loaded.name}. Nothing was changed.")
            return
        facts = loaded.describe()
        version, _ = await store.register(loaded.name, loaded.fingerprint, facts, go_live=False)
        local = dict.fromkeys(chosen, directory) if directory else {}
        configured = await run_directories(store, settings.audio.run_dirs)
        reader = await stack.enter_async_context(audio_reader(settings.supabase, settings.audio, configured | local))
        pipeline = Pipeline(store, reader.read, drafter, pipeline_settings(settings.drafting, facts))
        with Bars(console) as bars, bound_contextvars(version=version):
            bars.show("drafting", 0, eligible)
            card = Card(store, f"Drafting again with {loaded.name}", eligible)

            def show(tally: Tally) -> None:
                bars.show("drafting", tally.written + tally.dropped + tally.failed, eligible)
                card.tally = tally

            request = Request(version, manual=True, runs=tuple(chosen))
            tally = await card.beside(pipeline.turn(request, progress=show), f"as version {version}")
    console.print(
        f"{tally.written} drafts written as version {version}; {tally.dropped} left to the person who came first; "
        f"{tally.failed} failed (the log above says why)."
    )
    if tally.failed:
        raise typer.Exit(1)
