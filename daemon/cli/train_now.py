"""`ambara train --now`: the wish of a person, told to the daemons through the database."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from daemon.cli.connected import connected
from daemon.cli.plain import clean
from daemon.cli.status import fetch
from daemon.cli.status_view import SILENT_S
from daemon.cli.why import NO_DAEMON

if TYPE_CHECKING:
    from daemon.config import Settings
    from handlers.snapshot import Learning


def ask(settings: Settings) -> str:
    """Ask for training. Returns what will come of it, in one sentence.

    Raises `ConfigurationError` or `TemporaryError`; then nothing was asked.
    """
    learning = asyncio.run(_ask(settings))
    supabase = settings.supabase
    found = fetch(supabase.url, supabase.key.get_secret_value(), supabase.apikey.get_secret_value())
    daemons = found.get("daemons", [])
    return outcome(settings, learning, daemons)


def outcome(settings: Settings, learning: Learning, daemons: list[Mapping[str, Any]]) -> str:
    """What becomes of the wish, by the settings of this host."""
    from daemon.parts import policy_of
    from handlers.snapshot import Snapshot
    from handlers.training import why_not_train

    training = learning.training
    if training.active and not training.asked:  # a run that begins takes the wish with it
        return f"Run {training.active.run} has begun on {clean(training.active.worker)}."
    obstacle = why_not_train(Snapshot(live=None, loaded=None, ready=0, learning=learning), policy_of(settings))
    awake = [each for each in daemons if float(each.get("silent_s") or 0) <= SILENT_S]
    if obstacle or not awake:
        return f"Training is asked for, and cannot begin yet: {clean(obstacle or NO_DAEMON)}."
    if training.active:
        return f"Training is asked for: first, a daemon goes on with run {training.active.run}, which lost its worker."
    new = f"{training.new_clips} new corrections ({training.new_minutes:.1f} minutes)"
    return f"Training is asked for: within half a minute a daemon begins a run with {new}."


async def _ask(settings: Settings) -> Learning:
    from daemon.learning.registry import Registry
    from daemon.observer import observe_learning

    async with connected(settings) as project:
        await project.ledger.ask_training()
        return await observe_learning(project.ledger, Registry(settings.state.directory.resolve() / "models"))
