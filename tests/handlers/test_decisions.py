"""Decisions as tables: a snapshot in, commands out."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import handlers
from handlers import DECISIONS, handle
from handlers.commands import Command, Draft, Lane
from handlers.drafting import draft, why_not_draft
from handlers.events import EVENTS, ClipsChanged, ClipsDrafted, SweepDue
from handlers.policy import DraftingPolicy, Policy
from handlers.snapshot import Snapshot

POLICY = Policy(drafting=DraftingPolicy(batches_per_turn=3))
BUSY = frozenset({Lane.DRAFT})


@pytest.mark.parametrize(
    ("snapshot", "commands", "why"),
    [
        (Snapshot(live=1, loaded=1, ready=5), [Draft(version=1, batches=3)], None),
        (Snapshot(live=1, loaded=1, ready=0), [], "no clip wants a draft"),
        (Snapshot(live=1, loaded=1, ready=5, busy=BUSY), [], "drafting already"),
        (Snapshot(live=None, loaded=1, ready=5), [], "no model version is live yet"),
        (Snapshot(live=2, loaded=1, ready=5), [], "version 2 is live, and this daemon has version 1 loaded"),
        (Snapshot(live=2, loaded=None, ready=5), [], "version 2 is live, and this daemon has version None loaded"),
    ],
)
def test_draft(snapshot: Snapshot, commands: list[Command], why: str | None) -> None:
    """What is decided, and what `why` says, agree."""
    assert list(draft(snapshot, POLICY)) == commands
    assert why_not_draft(snapshot) == why


def test_every_event_has_a_row() -> None:
    assert set(DECISIONS) == set(EVENTS)


def test_a_sweep_takes_every_decision() -> None:
    """So an event that was lost costs time and nothing else."""
    assert {d for row in DECISIONS.values() for d in row} == set(DECISIONS[SweepDue])


def test_a_burst_is_one_decision_and_a_lane_gets_one_command() -> None:
    burst = [ClipsChanged(), ClipsDrafted(), SweepDue(), ClipsChanged()]
    assert handle(burst, Snapshot(live=1, loaded=1, ready=9), POLICY) == [Draft(version=1, batches=3)]
    assert handle([], Snapshot(live=1, loaded=1, ready=9), POLICY) == []


def test_the_core_imports_the_standard_library_alone() -> None:
    """The same rule as the import contract, for readers who run only this file."""
    for file in Path(handlers.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in {"handlers", *sys.stdlib_module_names}
