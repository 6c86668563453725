"""Twenty daemons count while people correct: one run for every time that the bar is reached."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from corrections import add_run, decide, fingerprint
from fault_record import Fault
from history import History
from training_storm_audit import audited, broken_lives, sampled
from witness import until

Db = psycopg.Connection[Any]
Connection = psycopg.AsyncConnection[Any]
COUNTERS, PEOPLE, BAR = 20, 4, 10
GUARD_S = 120


class Team:
    """People who correct one clip each at a time; none begins the next ten before a run has begun for the last."""

    def __init__(self, run: str, total: int, history: History, dice: random.Random) -> None:
        self._run = run
        self._left = total
        self._asked = 0
        self._history = history
        self._dice = dice
        self.answered: list[str] = []
        self.begun: list[tuple[str, int, int]] = []
        """Worker, run and fence, as workers were told."""
        self.finished: list[int] = []
        self.done = asyncio.Event()

    async def correct(self, connection: Connection) -> None:
        while self._asked < self._left:
            if self._asked >= BAR * (len(self.begun) + 1):
                await asyncio.sleep(0.005)
                continue
            self._asked += 1
            clip = str(uuid4())
            words = f"words {self._dice.random()}"
            change = {"status": "corrected", "corrected_transcription": words, "duration_sec": 6}
            with self._history.statement("insert", change, [clip]):
                await connection.execute(
                    "insert into clips (id, run_id, file_name, source_file, duration_sec, status, "
                    "corrected_transcription) values (%s, %s, %s, 'tape', 6, 'corrected', %s)",
                    [clip, self._run, f"clips/{clip}.wav", words],
                )
            self.answered.append(clip)
            await asyncio.sleep(self._dice.uniform(0, 0.02))

    async def count(self, connection: Connection, worker: str) -> None:
        """A daemon that asks to begin, without a pause; and, told to, trains for a moment and finishes."""
        while not self.done.is_set():
            call = "select ambara_begin_training(%s, %s, 0, 60, '{}')"
            row = await (await connection.execute(call, [worker, BAR])).fetchone()
            assert row is not None
            if row[0] is None:
                await asyncio.sleep(self._dice.uniform(0, 0.005))
                continue
            mine = (worker, row[0]["id"], row[0]["fence"])
            self.begun.append(mine)
            await asyncio.sleep(self._dice.uniform(0, 0.1))
            call = "select ambara_finish_training(%s, %s, %s, 'trained', %s, '{}')"
            row = await (await connection.execute(call, [*mine, fingerprint()])).fetchone()
            if row and row[0]:
                self.finished.append(mine[1])


@asynccontextmanager
async def connections(url: str, count: int) -> AsyncIterator[list[Connection]]:
    opened = [await psycopg.AsyncConnection.connect(url, autocommit=True) for _ in range(count)]
    try:
        yield opened
    finally:
        for connection in opened:
            await connection.close()


@pytest.mark.fault("F21", "threshold-storm")
async def test_one_run_a_crossing_with_twenty_counters(clean_stack: Any, db: Db, fault: Fault, tmp_path: Path) -> None:
    crossings = fault.size(full=20, short=5)
    fault.injected(f"{COUNTERS} counters without a pause, {BAR * crossings} corrections of {PEOPLE} people, bar {BAR}")
    history = History(tmp_path / "history.jsonl")
    decide(db, tape="train")
    team = Team(add_run(db), BAR * crossings, history, fault.random)
    with audited(db):
        async with (
            connections(clean_stack.db_url, COUNTERS + PEOPLE) as opened,
            asyncio.timeout(GUARD_S),
            asyncio.TaskGroup() as tasks,
        ):
            for number, connection in enumerate(opened[PEOPLE:]):
                tasks.create_task(team.count(connection, f"worker-{number}"))
            async with asyncio.TaskGroup() as people:
                for connection in opened[:PEOPLE]:
                    people.create_task(team.correct(connection))
            await until(lambda: len(team.finished) >= crossings, "every run finished")
            await asyncio.sleep(0.5)  # whoever is to begin one more has the time to
            team.done.set()
        counted = Counter(clip for run, items in sampled(db, 0) for clip, *_ in items)
        fault.holds("I3 each finished once, fences rising, one at a time", broken_lives(db))
        fault.holds("I3 attempts = crossings", _miscounted(team, sampled(db, 0), crossings))
    fault.holds("every acknowledged correction is in a run", set(team.answered) ^ set(counted))
    fault.holds("I2 people's words", history.broken(db))


def _miscounted(team: Team, samples: list[tuple[int, set[Any]]], crossings: int) -> list[object]:
    """By the acknowledged history: ten that no run has attempted begin a run."""
    found: list[object] = []
    attempted: set[str] = set()
    for run, items in samples:
        fresh = {clip for clip, *_ in items} - attempted
        attempted |= fresh
        if len(fresh) != BAR:
            found.append(f"run {run} began with {len(fresh)} new")
    told = sorted(run for _, run, _ in team.begun)
    if not len(team.answered) // BAR == len(samples) == len(set(told)) == len(told) == crossings:
        found.append(f"{len(team.answered)} corrections, {len(samples)} runs, told of {told}")
    if sorted(team.finished) != told:
        found.append(f"finished {team.finished} of {told}")
    return found
