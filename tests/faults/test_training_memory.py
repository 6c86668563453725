"""The trainer's memory runs out: it alone is killed, the run has a reason, and the next one begins."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import psycopg
import pytest
from corrections import add_corrected, add_run, decide
from fault_record import Fault
from training_storm import Worker
from training_storm_audit import audited, broken_lives
from witness import scalar, until

Db = psycopg.Connection[Any]
BAR = 4
LIMIT = 192 << 20
V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@contextmanager
def memory_group() -> Iterator[Path | None]:
    """A memory group of `LIMIT` bytes; None where this process may make none."""
    place = (V1 if V1.is_dir() else V2) / f"ambara-test-{uuid4().hex[:8]}"
    try:
        place.mkdir()
        (place / ("memory.limit_in_bytes" if V1.is_dir() else "memory.max")).write_text(str(LIMIT))
    except OSError:
        with suppress(OSError):
            place.rmdir()
        yield None
        return
    try:
        yield place
    finally:
        place.rmdir()


@pytest.mark.fault("F34", "oom")
async def test_the_trainer_alone_is_killed(clean_stack: Any, db: Db, fault: Fault, tmp_path: Path) -> None:
    fault.injected(f"a trainer that wants all memory, of which it is given {LIMIT >> 20} MiB")
    decide(db, tape="train", psalm="held_out")
    hungry = tmp_path / "hungry"
    hungry.touch()
    training = {"min_new_clips": BAR, "arguments": {"step_s": 0.3, "eat": str(hungry)}}
    with audited(db), memory_group() as group:
        with Worker(clean_stack, tmp_path, "worker", state=tmp_path / "state", training=training) as worker:
            run = add_run(db)
            for recording in ("tape", "psalm"):
                for word in range(BAR):
                    add_corrected(db, run, 1, recording=recording, words=f"{recording} {uuid4()} {word}", seconds=1)
            await until(worker.children, "a trainer", pause_s=0.01)
            (child,) = worker.children()
            adjusted = Path(f"/proc/{child.pid}/oom_score_adj")
            await until(lambda: adjusted.read_text().strip() == "500", "it offers itself to the killer", pause_s=0.01)
            hungry.unlink()
            _give(child, group, fault)
            hungry.touch()
            await until(lambda: _ended(db), "the run has ended", pause_s=0.01)
            hungry.unlink()  # the next is content with what there is
            with fault.healing():
                await until(lambda: _outcomes(db)[-1:] == ["finished"], "it was tried again")
            fault.holds("the daemon lives", [] if worker.process.poll() is None else [worker.output])
        reasons = [row[0] for row in db.execute("select reason from training_runs where status = 'failed'").fetchall()]
        fault.holds(
            "failed with a reason", [] if len(reasons) == 1 and "memory ran out" in reasons[0].lower() else reasons
        )
        fault.holds("I3 each run ended once", broken_lives(db))
    left = "select count(*) from training_runs where status = 'active'"
    fault.holds("nothing under way", range(scalar(db, left)))


def _give(child: psutil.Process, group: Path | None, fault: Fault) -> None:
    if group is not None:
        (group / "cgroup.procs").write_text(str(child.pid))
        return
    child.rlimit(psutil.RLIMIT_AS, (LIMIT, resource.RLIM_INFINITY))
    fault.observe("substitute: a limit of its address space, as no memory group can be made here")


def _ended(db: Db) -> bool:
    return "failed" in _outcomes(db)


def _outcomes(db: Db) -> list[str]:
    return [row[0] for row in db.execute("select status from training_runs order by id").fetchall()]
