"""Trainers and their daemons are killed at random moments while people go on working: one run a crossing, each once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from crowd import RememberingEditor
from fault_record import Fault
from history import History
from training_storm import Killer, Worker, broken_versions
from training_storm_audit import audited, broken_lives
from training_storm_book import Book
from training_storm_people import StormPeople
from training_storm_worker import LEASE_S
from witness import team, until

Db = psycopg.Connection[Any]
BAR, SLACK = 6, 4
PEOPLE = 4
GUARD_S = 300.0
"""Workers start again and again, on a machine that is busy with other things."""


@pytest.mark.fault("F22", "trainer-kill")
async def test_one_run_a_crossing_whoever_is_killed(clean_stack: Any, db: Db, fault: Fault, tmp_path: Path) -> None:
    crossings, kills = fault.size(full=20, short=3), fault.size(full=50, short=5)
    fault.injected(
        f"{kills} kill -9 of 4 workers of 2 hosts and their trainers, {PEOPLE} people, {crossings} crossings"
    )
    fault.observe(f"time: lease {LEASE_S:.0f} s, cooldown 0.6 s; substitute: the trainer learns in a second")
    lock = tmp_path / "training"
    training = {"min_new_clips": BAR, "arguments": {"step_s": 0.15, "lock": str(lock)}}
    states = [tmp_path / "host-0", tmp_path / "host-1"]
    history = History(tmp_path / "history.jsonl")
    book = Book(BAR, SLACK)
    done = asyncio.Event()
    with audited(db):
        async with team(clean_stack) as editor, AsyncExitStack() as stack:
            people = StormPeople(RememberingEditor(editor.person, editor.scripts, history), db, book, fault.random)
            await people.settle()
            workers = [
                stack.enter_context(
                    Worker(clean_stack, tmp_path, f"worker-{number}", state=states[number % 2], training=training)
                )
                for number in range(4)
            ]
            killer = Killer(workers, db, fault.random)
            async with asyncio.TaskGroup() as tasks:
                for _ in range(PEOPLE):
                    tasks.create_task(
                        people.work(
                            done, lambda: book.reached * kills / crossings < killer.killed.total() + kills / crossings
                        )
                    )
                for number in range(kills):
                    share = number * crossings / kills  # spread over all that people do
                    await until(lambda due=share: book.reached >= due, "people go on", guard_s=GUARD_S)
                    await killer.strike()
                await until(lambda: book.reached >= crossings, "all crossings", guard_s=GUARD_S)
                done.set()
            with fault.healing():
                await until(lambda: _settled(db, book), "every run ended", guard_s=GUARD_S)
        fault.observe(f"killed: {dict(killer.killed)}; people: {people.acts}; runs: {_outcomes(db)}")
        failed = dict(db.execute("select id, reason from training_runs where status = 'failed'").fetchall())
        fault.holds("I3 attempts = crossings", _miscounted(book, crossings, set(failed)))
        fault.holds("I3 only what people wrote", [words for each in book.begun for words in each.strange])
        fault.holds("I3 each finished once, fences rising, one at a time", broken_lives(db))
        fault.holds("max overlap 1", _lines(tmp_path / "training.overlaps"))
        fault.holds("failed by a kill alone, and then done again", _unexplained(db, failed, killer))
        fault.holds("I5 what was made is whole", broken_versions(db, states))
        fault.holds("I2 people's words", history.broken(db))


def _settled(db: Db, book: Book) -> bool:
    """Nothing is new enough, nothing is under way, and nothing waits to be tried again."""
    book.refresh(db)
    last = db.execute("select status from training_runs order by id desc limit 1").fetchone()
    return not book.waiting and last == ("finished",)


def _miscounted(book: Book, crossings: int, failed: set[int]) -> list[object]:
    """Runs that began with too little new, unless they do again what failed; and crossings without a run."""
    before = {after.run: each.run for each, after in pairwise(book.begun)}
    found: list[object] = [each for each in book.begun if each.fresh < BAR and before.get(each.run) not in failed]
    if not len(book.crossings) == book.reached >= crossings:
        found.append(f"{book.reached} crossings, and {len(book.crossings)} runs that began for them")
    return found


def _unexplained(db: Db, failed: dict[int, str], killer: Killer) -> list[str]:
    """Runs that failed otherwise than by a trainer's death or by five of their workers'; versions that are not
    the one of a finished run."""
    killed = [reason for reason in failed.values() if reason.startswith("It was killed")]
    given_up = [reason for reason in failed.values() if reason.startswith("Five workers")]
    found = [reason for reason in failed.values() if reason not in (*killed, *given_up)]
    if len(killed) > killer.killed["a trainer"] or 5 * len(given_up) > killer.killed.total():
        found.append(f"{len(killed)} and {len(given_up)} failures, {dict(killer.killed)}")
    query = (
        "select r.id::text || ' ' || r.status || ' ' || v.stage from training_runs r "
        "left join model_versions v on v.id = r.version_id "
        "where (r.status = 'failed') <> (v.fingerprint like 'untrained:%') or v.stage = 'training' or v.id is null"
    )
    return found + [row[0] for row in db.execute(query).fetchall()]


def _outcomes(db: Db) -> dict[str, int]:
    return dict(db.execute("select status, count(*)::int from training_runs group by 1").fetchall())


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
