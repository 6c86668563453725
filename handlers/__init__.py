"""The whole daemon on one page: which decisions are taken again after which event.

An event is a doorbell, not a letter. A lost, doubled or late one may delay a decision and can never falsify it,
because a handler sees the snapshot and not the event. Decisions are pure; `daemon.executor` carries them out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from handlers.commands import Command
from handlers.drafting import draft, swap
from handlers.edits import roll_back
from handlers.events import (
    ClipsChanged,
    ClipsDrafted,
    EvaluationFinished,
    Event,
    ModelPromoted,
    ModelRejected,
    ModelSwapped,
    SweepDue,
    TrainingFailed,
    TrainingFinished,
)
from handlers.policy import Policy
from handlers.promotion import evaluate, promote
from handlers.snapshot import Snapshot
from handlers.training import train

Handler = Callable[[Snapshot, Policy], Iterable[Command]]

DECISIONS: Mapping[type[Event], tuple[Handler, ...]] = {
    ClipsChanged: (draft,),
    ClipsDrafted: (swap, draft),
    TrainingFinished: (evaluate,),
    TrainingFailed: (train,),  # the cool-down applies
    EvaluationFinished: (promote,),
    ModelPromoted: (swap, draft),
    ModelRejected: (train,),
    ModelSwapped: (draft,),  # everything pending is stale now: that is the re-draft
    SweepDue: (swap, draft, roll_back, promote, evaluate, train),  # every decision, those that stand above included
}

LEARNING: frozenset[Handler] = frozenset({roll_back, train, evaluate, promote})
"""The decisions that look at `Snapshot.learning`."""


def needs_learning(events: Collection[Event]) -> bool:
    """Whether a decision after these events looks at `Snapshot.learning`."""
    return any(handler in LEARNING for event in events for handler in DECISIONS[type(event)])


def handle(events: Collection[Event], snapshot: Snapshot, policy: Policy) -> list[Command]:
    """Take the decisions of all `events`, each once, and never send a command into a busy lane.

    Those of `LEARNING` are taken where the snapshot tells of it, and the others where it does not: counting what there
    is to learn takes so long that it has rounds of its own.
    """
    counted = snapshot.learning is not None
    handlers = dict.fromkeys(
        handler for event in events for handler in DECISIONS[type(event)] if (handler in LEARNING) is counted
    )
    commands: list[Command] = []
    busy = set(snapshot.busy)
    for handler in handlers:
        for command in handler(snapshot, policy):
            if command.lane not in busy:
                busy.add(command.lane)
                commands.append(command)
    return commands
