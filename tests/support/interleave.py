"""People and machines at the same rows at the same time, on a real PostgreSQL at READ COMMITTED.

`free_run` lets them all loose until so many claims were crossed by a person. What is left is judged by three that know
nothing of each other: the triggers of `audit`, the people's own ledgers, and the errors that anybody was told.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import audit
import psycopg
from interleave_drafters import Daemon, Drafter, Held, Versions
from interleave_ledger import Sql, connected
from interleave_people import Person
from interleave_schedules import IMPATIENCE_MS, Stage, schedules

PEOPLE = 4
DRAFTERS = 3
RUNS = 10
CLIPS = 12
"""Of one run. Small runs, so that people meet machines at every statement."""
PATIENCE_MS = 20_000
"""No statement waits so long for another: whoever does has met somebody who waits in the middle of a transaction."""


@dataclass
class Findings:
    """What is wrong, each in words; and what was done."""

    violations: list[str] = field(default_factory=list)
    """Of the daemon, by the audit."""
    words: list[str] = field(default_factory=list)
    """Rows that are not as people were told."""
    errors: list[str] = field(default_factory=list)
    """Statements that failed, with who was told so."""
    counts: dict[str, int] = field(default_factory=dict)
    statements: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0

    def all(self) -> list[str]:
        """Everything that is wrong."""
        return [*self.violations, *self.words, *self.errors]

    def seen(self, what: str) -> list[str]:
        """What is wrong in this way."""
        return [wrong for wrong in self.all() if what and what in wrong]


def versions(db: Sql) -> Versions:
    """Three models; the first is live."""
    ids = [
        db.execute(
            "select (ambara_register_model(%s, %s, '{}', %s) ->> 'version')::bigint", [name, name, live]
        ).fetchone()
        for name, live in [("one", True), ("two", False), ("by hand", False)]
    ]
    first, second, third = (row[0] for row in ids if row)
    return Versions((first, second), third)


@contextmanager
def daemon(db_url: str, worker: str, *, patience_ms: int = PATIENCE_MS) -> Iterator[Daemon]:
    """The daemon's functions over a connection of their own, under the role that the service key gives."""
    with connected(db_url, "service_role") as connection:
        connection.execute(f"set lock_timeout = {patience_ms}".encode())
        yield Daemon(connection, worker)


def play_schedules(db_url: str, db: Sql, dice: random.Random, *, seek: str = "") -> Findings:
    """Every order of one person and one machine, once; ends early where a fault that says `seek` is found."""
    found = Findings()
    person = Person(db_url, dice, runs=0, clips=2)
    with (
        daemon(db_url, "worker-a", patience_ms=IMPATIENCE_MS) as first,
        daemon(db_url, "worker-b", patience_ms=IMPATIENCE_MS) as second,
    ):
        stage = Stage(db, person, first, second, versions(db))
        for name, schedule in schedules(stage):
            try:
                found.outcomes["schedules"] += 1
                found.words += [f"{name}: {wrong}" for wrong in schedule()]
            except (psycopg.Error, AssertionError, ValueError) as error:
                found.errors.append(f"{name}: {getattr(error, 'sqlstate', '')} {error}")
            found.violations = audit.violations(db)
            if found.seen(seek):
                break
    found.words += person.broken(db)
    found.counts = audit.counts(db)
    person.close()
    return found


def free_run(db_url: str, db: Sql, dice: random.Random, *, crossed: int, guard_s: float) -> Findings:
    """Everybody at once, until so many claims were crossed by a person, or something is wrong.

    The audit has to be installed, and the tables empty.
    """
    found = Findings()
    over = threading.Event()
    known = versions(db)
    with ExitStack() as stack:
        people = [Person(db_url, random.Random(dice.random()), runs=RUNS, clips=CLIPS) for _ in range(PEOPLE)]
        for person in people:
            stack.callback(person.close)
        daemons = [stack.enter_context(daemon(db_url, f"worker-{number}")) for number in range(DRAFTERS)]
        tell = Owners(people).tell
        acts = [("a person", person.act) for person in people]
        acts += [(each.worker, Drafter(each, known, random.Random(dice.random()), tell).turn) for each in daemons]
        threads = [threading.Thread(target=_again, args=(act, over, found, who)) for who, act in acts]
        stack.callback(lambda: [thread.join() for thread in threads])
        stack.callback(over.set)
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + guard_s
        wanted = crossed
        while time.monotonic() < deadline and not found.errors and not audit.violations(db):
            # Not every submission is refused because of a person: the audit counts, but that takes a while.
            if sum(each.outcomes["dropped"] for each in daemons) >= wanted:
                missing = crossed - audit.counts(db)["interleavings"]
                if missing <= 0:
                    break
                wanted += missing
            time.sleep(0.05)
    found.violations = audit.violations(db)
    for person in people:
        found.words += person.broken(db)
        found.statements += person.statements
        found.longest_s = max(found.longest_s, person.longest_s)
    for each in daemons:
        found.outcomes += each.outcomes
    found.counts = audit.counts(db)
    return found


class Owners:
    """Tells people which of their clips a machine has just claimed."""

    def __init__(self, people: list[Person]) -> None:
        self._people = people

    def tell(self, held: Sequence[Held]) -> Callable[[], int]:
        """Whoever has one of these clips gets to know. Returns how to ask how many, of all, nobody has looked at."""
        clips = {each.clip for each in held}
        for person in self._people:
            person.inbox.extend(clips & person.ledger.keys())
        return lambda: sum(len(person.inbox) for person in self._people)


def _again(act: Callable[[], Any], over: threading.Event, found: Findings, who: str) -> None:
    while not over.is_set():
        try:
            act()
        except Exception as error:  # whatever it is: nobody else would hear of it
            found.errors.append(f"{who}: {getattr(error, 'sqlstate', '')} {error}")
            over.set()
