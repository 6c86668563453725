"""The guarded write under random histories of people and machines, against a model of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import audit
import psycopg
import pytest
from fault_record import Fault
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from interleave import versions
from interleave_drafters import Daemon
from interleave_ledger import connected
from interleave_model import WORKERS, Queue
from interleave_mutants import GUARD_MUTANTS, GuardMutant, mutated

Sql = psycopg.Connection[Any]
MUTANTS = [mutant for mutant in GUARD_MUTANTS if mutant.crowd]


def play(fault: Fault, db_url: str, db: Sql, *, examples: int, steps: int, phases: tuple[Phase, ...]) -> Counter[str]:
    """Random histories. Returns what became of the drafts."""
    with (
        audit.audited(db),
        connected(db_url, "authenticated") as editor,
        connected(db_url, "service_role") as service,
    ):
        daemons = {worker: Daemon(service, worker) for worker in WORKERS}
        world = {"fault": fault, "db": db, "editor": editor, "versions": versions(db), "daemons": daemons}
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            seed(fault.seed)(type("Machine", (Queue,), world)),
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                database=None,
                phases=phases,
                suppress_health_check=list(HealthCheck),
            ),
        )
    return sum((each.outcomes for each in daemons.values()), Counter())


@pytest.mark.fault("F18", "human-model")
def test_the_guard_is_what_the_model_says(fault: Fault, clean_stack: Any, db: Sql) -> None:
    examples, steps = fault.size(full=200, short=15), fault.size(full=50, short=30)
    fault.injected(f"{examples} random histories of {steps} steps: people, two workers, crashes, versions going live")
    outcomes = play(fault, clean_stack.db_url, db, examples=examples, steps=steps, phases=tuple(Phase))
    fault.holds("both ends were met", {"written", "dropped"} - outcomes.keys())
    fault.observe(f"{outcomes['written']} drafts written, {outcomes['dropped']} dropped")


@pytest.mark.long
@pytest.mark.fault("F18", "model-mutants")
@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_the_model_misses_every_predicate(fault: Fault, clean_stack: Any, db: Sql, mutant: GuardMutant) -> None:
    fault.injected(f"the same histories with the guarded write without: {mutant.name}")
    found = ""
    with mutated(db, mutant):
        try:
            play(fault, clean_stack.db_url, db, examples=200, steps=50, phases=(Phase.generate,))
        except AssertionError as error:
            found = str(error).splitlines()[0]
    fault.holds("the model sees it", [] if found.startswith(fault.number) else [mutant.name])
    fault.observe(found)
