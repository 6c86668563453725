"""People and machines at the same rows: no draft where none may be, and every word where a person left it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import audit
import psycopg
import pytest
from fault_record import Fault
from interleave import DRAFTERS, PEOPLE, Findings, free_run, play_schedules, versions
from interleave_mutants import GUARD_MUTANTS, GuardMutant, mutated
from witness import scalar

from daemon.local.stack import LocalStack

Sql = psycopg.Connection[Any]
ERRORS = re.compile(r"^.*(?:(?:ERROR|DETAIL|CONTEXT|STATEMENT): |\tProcess \d+: ).*$", re.MULTILINE)
"""Lines of PostgreSQL's log."""


@pytest.fixture
def watched(db: Sql) -> Iterator[Sql]:
    """An empty database, audited."""
    with audit.audited(db):
        yield db


def held(fault: Fault, found: Findings) -> None:
    """Nobody was wronged."""
    fault.holds("I4 no draft that may not be", found.violations)
    fault.holds("I2 people's words", found.words)
    fault.holds("nobody's statement fails", found.errors)


@pytest.mark.fault("F18", "human-interleavings")
def test_everybody_at_once(fault: Fault, clean_stack: Any, watched: Sql) -> None:
    wanted = fault.size(full=100_000, short=2_000)
    fault.injected(f"{wanted:,} claims crossed by a person before the draft came, {PEOPLE} people, {DRAFTERS} daemons")
    found = free_run(clean_stack.db_url, watched, fault.random, crossed=wanted, guard_s=1800)
    if found.errors and isinstance(clean_stack, LocalStack):
        # Of a deadlock the server alone knows both statements.
        log = clean_stack.postgres.log.read_text(encoding="utf-8")
        found.errors.append("the server's log: " + " ".join(ERRORS.findall(log)[-12:]))
    held(fault, found)
    counts = found.counts
    fault.holds("all of them", [counts] if counts["interleavings"] < wanted else [])
    fault.observe(
        f"{counts['interleavings']:,} crossed of {counts['claims']:,} claims, {counts['drafts']:,} drafts; "
        f"{found.statements:,} statements of people, who wrote {counts['human_writes']:,} rows; "
        f"busy {found.outcomes['busy']:,} times; a person's longest wait {found.longest_s * 1000:.0f} ms"
    )


@pytest.mark.fault("F18", "human-schedules")
def test_every_act_at_every_place_of_a_drafts_life(fault: Fault, clean_stack: Any, watched: Sql) -> None:
    found = play_schedules(clean_stack.db_url, watched, fault.random)
    fault.injected(
        f"{found.outcomes['schedules']} orders of a person and a machine: before the claim, beside it, before, during "
        "and after the submission, in an open transaction"
    )
    held(fault, found)


@pytest.mark.fault("F18", "guard-mutants")
@pytest.mark.parametrize("mutant", GUARD_MUTANTS, ids=[mutant.name for mutant in GUARD_MUTANTS])
def test_every_predicate_of_the_guarded_write_is_needed(
    fault: Fault, clean_stack: Any, watched: Sql, mutant: GuardMutant
) -> None:
    """Without it, the same schedules and the same crowd find what it kept from happening."""
    fault.injected(f"the guarded write without: {mutant.name}")
    with mutated(watched, mutant):
        found = play_schedules(clean_stack.db_url, watched, fault.random, seek=mutant.breaks)
        fault.holds("schedules see it", [] if found.seen(mutant.breaks) else [(mutant.breaks, found.all()[:10])])
        fault.observe(found.seen(mutant.breaks)[0])
        if fault.full and mutant.crowd:
            watched.execute("delete from runs; truncate audit.log, audit.violations")
            found = free_run(clean_stack.db_url, watched, fault.random, crossed=20_000, guard_s=60)
            # It stops at the first violation, which may be another one of the same cause.
            fault.holds("a crowd sees it", [] if found.violations else [(mutant.name, found.all()[:10])])


STRANGE = {
    "status by itself": "set role service_role; update clips set status = 'discarded'; reset role",
    "a clip deleted": "set role service_role; delete from clips; reset role",
    "another function": "create function ambara_rogue() returns void language sql as "
    "$$ update public.clips set draft_transcription = 'x' $$; select ambara_rogue()",
    "a function deletes": "create function ambara_rogue() returns void language sql as "
    "$$ delete from public.clips $$; select ambara_rogue()",
    "a claim stolen": "update draft_state set worker = 'another'",
    "a fence falls": "update draft_state set fence = 0",
}
"""What no function of the daemon does, and no script."""


@pytest.mark.parametrize("strange", STRANGE)
def test_the_audit_sees_what_nobody_does(watched: Sql, strange: str) -> None:
    version = versions(watched).live[0]
    run = scalar(watched, "insert into runs (label) values ('audit') returning id")
    watched.execute("insert into clips (run_id, file_name) values (%s, 'clips/1.wav')", [run])
    assert watched.execute("select * from ambara_claim('w', %s, 1, 60)", [version]).fetchall()
    assert audit.violations(watched) == []
    try:
        watched.execute(STRANGE[strange].encode())
    finally:
        watched.execute("drop function if exists ambara_rogue()")
    assert audit.violations(watched)
