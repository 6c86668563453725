"""What would take more than the stack to break: on a database beside it, or with an answer that was changed."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest
from doctor_bench import faults, look, made, mended
from witness import insert_clips

from daemon import migrate
from daemon.config import Settings
from daemon.doctor import facts
from daemon.doctor.finding import Fault
from daemon.doctor.patient import admit
from daemon.local import origin
from daemon.local.stack import LocalStack

OURS = {"clips", "runs"} | {
    table
    for each in migrate.migrations()
    for table in re.findall(r"create table if not exists public\.(\w+)", each.sql)
}
"""What the migrations make, beside what they need."""


@pytest.fixture
def settings(local_stack: LocalStack, tmp_path: Path) -> Settings:
    return made(local_stack, tmp_path)


async def test_clips_without_a_primary_key(blank_database: str, settings: Settings) -> None:
    origin.prepare(blank_database, minimal=True)
    with psycopg.connect(blank_database, autocommit=True) as db:
        async with admit(settings, "") as patient:

            def told() -> str:
                row = db.execute("select ambara_examine()").fetchone()
                assert row is not None
                patient.facts = row[0]
                return facts.tables(patient)

            assert told() == f"all {len(OURS)} are there"
            assert set(patient.facts["tables"]) == OURS
            db.execute("alter table clips drop constraint clips_pkey cascade")
            with pytest.raises(Fault, match="clips: no primary key") as fault:
                told()
            db.execute(fault.value.remedy.encode())
            assert told() == f"all {len(OURS)} are there"
            db.execute("alter table clips disable row level security")
            db.execute('drop policy "Signed-in people read clips" on clips')
            db.execute('drop policy "Signed-in people add clips" on clips; drop policy "Ambara reads" on clips')
            db.execute('drop policy "Signed-in people correct clips" on clips')
            told()
            with pytest.raises(Fault, match="off for clips") as fault:
                facts.row_security(patient)
            db.execute(fault.value.remedy.encode())
            told()
            facts.row_security(patient)
            assert patient.facts["tables"]["clips"]["policies"] == 3


async def test_the_queues_index(blank_database: str, settings: Settings) -> None:
    """It can be dropped, and is made again by the migration."""
    origin.prepare(blank_database, minimal=False)
    with psycopg.connect(blank_database, autocommit=True) as db:
        async with admit(settings, "") as patient:
            db.execute("drop index draft_queue_order")
            row = db.execute("select ambara_examine()").fetchone()
            patient.facts = row[0] if row else {}
            with pytest.raises(Fault, match="not the index draft_queue_order") as fault:
                facts.queue(patient)
            assert fault.value.remedy.endswith("ambara migrate --again")
            migrate.apply(blank_database, again=True)
            row = db.execute("select ambara_examine()").fetchone()
            patient.facts = row[0] if row else {}
            assert facts.queue(patient) == "draft_queue follows clips"


async def test_a_queue_that_was_deaf_is_put_right(clean_stack: LocalStack, settings: Settings) -> None:
    """By a daemon: what came meanwhile is in it, and what was written over meanwhile wants a draft again."""
    with mended(clean_stack) as db:
        run = "00000000-0000-4000-8000-000000000001"
        insert_clips(db, run, ["clips/0.wav", "clips/1.wav"])
        db.execute("select ambara_register_model('base', 'f', '{}', true)")
        db.execute(
            "select ambara_submit('w', 1, (select jsonb_agg(jsonb_build_object('clip_id', c.clip_id, 'fence', c.fence, "
            "'text', 'heard')) from ambara_claim('w', 1, 9, 600) c))"
        )
        ready = "select ambara_snapshot() -> 'ready'"
        assert db.execute(ready.encode()).fetchone() == (0,)
        db.execute("alter table clips disable trigger ambara_clips_came, disable trigger ambara_clips_changed")
        insert_clips(db, run, ["clips/2.wav"])
        db.execute("update clips set draft_transcription = 'stock again' where file_name = 'clips/1.wav'")
        assert db.execute(ready.encode()).fetchone() == (0,)
        db.execute(faults(await look(settings))["queue"].encode())
        assert db.execute(b"select ambara_mend_clips('clips', null, 9) -> 'wrong'").fetchone() == (2,)
        assert db.execute(ready.encode()).fetchone() == (2,)


async def test_a_database_that_writes_nothing_for_realtime(local_stack: LocalStack, settings: Settings) -> None:
    with psycopg.connect(local_stack.db_url) as db:
        row = db.execute("select ambara_examine()").fetchone()
    async with admit(settings, "") as patient:
        patient.facts = row[0] if row else {}
        assert facts.replication(patient) == "wal_level is logical"
        patient.facts |= {"wal_level": "replica"}
        with pytest.raises(Fault, match="wal_level is replica") as fault:
            facts.replication(patient)
    assert fault.value.remedy.startswith("alter system set wal_level = 'logical';")
