"""A daemon stands still for longer than its lease, with a run in its hands: what it says afterwards is not heard."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import psycopg
import pytest
from corrections import add_corrected, add_run, decide
from fault_record import Fault
from training_storm import Worker, broken_versions
from training_storm_audit import audited, broken_lives
from training_storm_worker import LEASE_S
from witness import scalar, until

Db = psycopg.Connection[Any]
BAR = 4


@pytest.mark.fault("F22", "trainer-freeze")
@pytest.mark.parametrize("same_host", [True, False])
async def test_who_wakes_up_late_changes_nothing(
    clean_stack: Any, db: Db, fault: Fault, tmp_path: Path, same_host: bool
) -> None:
    where = "the same host" if same_host else "another host"
    fault.injected(f"SIGSTOP for longer than the lease; a daemon of the same name on {where} takes the run over")
    fault.observe(f"time: lease {LEASE_S:.0f} s; substitute: the trainer learns in seconds")
    decide(db, tape="train", psalm="held_out")
    training = {"min_new_clips": BAR, "arguments": {"step_s": 0.4}}
    states = [tmp_path / "state", tmp_path / ("state" if same_host else "other")]
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with (
        audited(db),
        Worker(clean_stack, tmp_path / "one", "worker", state=states[0], training=training) as old,
    ):
        run = add_run(db)
        for recording in ("tape", "psalm"):
            for word in range(BAR):
                add_corrected(db, run, 1, recording=recording, words=f"{recording} {uuid4()} {word}", seconds=1)
        await until(lambda: _step(db) >= 2, "some steps are learned")
        frozen = [psutil.Process(old.process.pid), *old.children()]
        for process in frozen:
            process.send_signal(signal.SIGSTOP)
        with Worker(clean_stack, tmp_path / "two", "worker", state=states[1], training=training):
            await until(lambda: scalar(db, "select max(fence) from training_runs") == 2, "it is taken over")
            for process in frozen:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)
            with fault.healing():
                await until(lambda: scalar(db, "select status from training_runs") != "active", "the run has ended")
            # The one who was late looks again, and so has said all that it had to say.
            await until(lambda: _late_has_ended(old), "the late one has let go")
        status = db.execute("select status, reason from training_runs").fetchall()
        fault.holds("I3 the run finished", [] if status == [("finished", None)] else status)
        fault.holds("I3 once, fences rising", broken_lives(db))
    fault.holds("I5 what was made is whole", broken_versions(db, states[1:]))


def _step(db: Db) -> int:
    learning = "select max((detail ->> 'step')::int) from training_runs where detail ->> 'phase' = 'training'"
    return int(scalar(db, f"select coalesce(({learning}), 0)"))


def _late_has_ended(worker: Worker) -> bool:
    return not worker.children()
