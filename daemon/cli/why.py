"""`ambara why`: what stands in the way of drafting, training and promotion, a sentence each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.connected import connected
from daemon.cli.context import settings_of
from daemon.cli.plain import clean
from daemon.cli.status import fetch
from daemon.cli.status_view import SILENT_S

if TYPE_CHECKING:
    from daemon.config import Settings
    from handlers.snapshot import Snapshot

NO_DAEMON = "no daemon is running: start one with `ambara run`"
THEN = {
    "drafting": "nothing stands in the way: clips are being drafted",
    "training": "nothing stands in the way: a run begins, or goes on, when a daemon looks next",
    "promotion": "nothing stands in the way: the candidate is better, and goes live when a daemon looks next",
    "drafts": "they need more edits than before: a daemon goes back when it looks next",
}


def why(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="The sentences as JSON, for a program.")] = False,
) -> None:
    """Say why Ambara is not drafting, training or promoting at this moment, a sentence each, and whether people change
    less in the drafts than before.

    The database is read anew and weighed by the settings of this host; then follows what each running daemon says
    about itself.

    [bold]Examples[/bold]

        ambara why

        ambara why --json | jq -r .training
    """
    settings = settings_of(context)
    snapshot = asyncio.run(_observe(settings))
    supabase = settings.supabase
    found = fetch(supabase.url, supabase.key.get_secret_value(), supabase.apikey.get_secret_value())
    daemons = found.get("daemons", [])
    answer = explain(settings, snapshot, daemons)
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    for topic, otherwise in THEN.items():
        typer.echo(f"{topic:<11}{clean(answer[topic] or otherwise)}")
    for each in answer["daemons"]:
        typer.echo(clean(f"{each['worker']}: {each['blocked'] or 'nothing stands in its way'}"))
    if not answer["daemons"]:
        typer.echo(NO_DAEMON)


def explain(settings: Settings, snapshot: Snapshot, daemons: list[Mapping[str, Any]]) -> dict[str, Any]:
    """For each topic what stands in the way, or None."""
    from daemon.parts import policy_of
    from handlers.drafting import why_not_draft
    from handlers.edits import why_not_roll_back
    from handlers.promotion import why_not_promote
    from handlers.training import why_not_train

    policy = policy_of(settings)
    awake = [each for each in daemons if float(each.get("silent_s") or 0) <= SILENT_S]
    return {
        "drafting": why_not_draft(snapshot) or (None if awake else NO_DAEMON),
        "training": why_not_train(snapshot, policy) or (None if awake else NO_DAEMON),
        "promotion": why_not_promote(snapshot, policy) or (None if awake else NO_DAEMON),
        "drafts": why_not_roll_back(snapshot, policy) or (None if awake else NO_DAEMON),
        "daemons": [{"worker": each["worker"], "blocked": _blocked(each)} for each in daemons],
    }


def _blocked(daemon: Mapping[str, Any]) -> str | None:
    """What a daemon says keeps it from its work, or that it says nothing."""
    if (silent := float(daemon.get("silent_s") or 0)) > SILENT_S:
        return f"silent for {silent:.0f} s"
    state = daemon.get("state") or {}
    return f"not drafting: {state['blocked']}" if state.get("blocked") else None


async def _observe(settings: Settings) -> Snapshot:
    """A fresh look at the database, as a daemon on this host would take it with the live model in memory."""
    from daemon.learning.registry import Registry
    from daemon.observer import observe_learning
    from handlers.snapshot import Snapshot

    registry = Registry(settings.state.directory.resolve() / "models")
    async with connected(settings) as project:
        live, ready = await project.store.snapshot()
        learning = await observe_learning(project.ledger, registry)
    return Snapshot(live=live, loaded=live, ready=ready, learning=learning)
