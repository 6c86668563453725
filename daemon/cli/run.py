"""`ambara run`: the daemon."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from daemon.cli.context import config_path, settings_of
from daemon.config import load, prepare_state


def run(
    context: typer.Context,
    wait: Annotated[
        bool | None,
        typer.Option("--wait/--no-wait", help="Keep trying when Supabase cannot be reached at the start."),
    ] = None,
) -> None:
    """Draft pending clips as they arrive, until SIGTERM or Ctrl-C.

    Under a service manager the daemon waits for Supabase to come up; at a terminal it says what is wrong and ends.
    SIGHUP lets it take up changed thresholds: when to train, when to promote, how long to draft.

    [bold]Examples[/bold]

        SUPABASE_URL=https://abc.supabase.co SUPABASE_SERVICE_ROLE_KEY=… ambara run

        ambara --config /etc/ambara/ambara.toml run --wait
    """
    settings = settings_of(context)
    prepare_state(settings.state.directory)
    from daemon import app  # supabase and realtime take a second to import
    from daemon.notify import Notifier

    supervised = "NOTIFY_SOCKET" in os.environ or "INVOCATION_ID" in os.environ
    patient = supervised if wait is None else wait
    file = config_path(context)
    asyncio.run(
        app.run(settings, wait=patient, notifier=Notifier.from_environment(), reread=lambda: load(file, os.environ))
    )
