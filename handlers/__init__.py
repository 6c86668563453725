"""The whole daemon on one page: which decisions are taken again after which event.

An event is a doorbell, not a letter. A lost, doubled or late one may delay a decision and can never falsify it,
because a handler sees the snapshot and not the event. Decisions are pure; `daemon.executor` carries them out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from handlers.commands import Command
from handlers.drafting import draft
from handlers.events import ClipsChanged, ClipsDrafted, Event, SweepDue
from handlers.policy import Policy
from handlers.snapshot import Snapshot

Handler = Callable[[Snapshot, Policy], Iterable[Command]]

DECISIONS: Mapping[type[Event], tuple[Handler, ...]] = {
    ClipsChanged: (draft,),
    ClipsDrafted: (draft,),
    SweepDue: (draft,),  # every decision that stands above
}


def handle(events: Collection[Event], snapshot: Snapshot, policy: Policy) -> list[Command]:
    """Take the decisions of all `events`, each once, and never send a command into a busy lane."""
    handlers = dict.fromkeys(handler for event in events for handler in DECISIONS[type(event)])
    commands: list[Command] = []
    busy = set(snapshot.busy)
    for handler in handlers:
        for command in handler(snapshot, policy):
            if command.lane not in busy:
                busy.add(command.lane)
                commands.append(command)
    return commands
