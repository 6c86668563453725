"""How far a re-draft is, as an editor with a table `jobs` shows it; and that nothing depends on it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest
from corrections import add_corrected, add_run, decide
from daemon_process import daemon_process
from supabase import AsyncClient
from witness import Database, insert_clips, scalar, until

from daemon import migrate
from daemon.asr.transcriber import Draft
from daemon.cli.redraft_card import Card
from daemon.clips import ClipStore
from daemon.database import Database as Functions
from daemon.errors import TemporaryError
from daemon.learning.ledger import Ledger
from daemon.local.origin import origin_sql
from daemon.ports import Drafted, Failed, Retry, Tally

RUN = "00000000-0000-4000-8000-000000000001"
CARDS = "select status, progress, progress_message from jobs where type = 'redraft' order by created_at"
SHAPES = {
    "no table": "drop table jobs",
    "another table": "drop table jobs; create table jobs (id int)",
    "other columns": "drop table jobs; create table jobs (type text, status text, params text)",
    "other types": "alter table jobs drop constraint jobs_type_check, add check (type in ('ingest', 'export'))",
    "other words": "alter table jobs drop constraint jobs_status_check, add check (status in ('queued'))",
    "no right": "alter table jobs add check (progress_message is null)",
}


@pytest.fixture
def store(supabase_client: AsyncClient) -> ClipStore:
    return ClipStore(supabase_client, "worker")


@pytest.fixture
async def version(store: ClipStore, db: Database) -> int:
    """The live one; it has drafted ten clips."""
    insert_clips(db, RUN, [f"clips/{i}.wav" for i in range(10)])
    number, _ = await store.register("base", "f" * 64, {}, go_live=True)
    await draft(store, number, 10)
    return number


async def draft(store: ClipStore, version: int, count: int) -> None:
    claims = await store.claim(version, count, 600)
    await store.submit(version, [Drafted(each, Draft(f"heard by {version}", confidence=-0.2)) for each in claims])


def cards(db: Database) -> list[tuple[Any, ...]]:
    return db.execute(CARDS.encode()).fetchall()


async def test_what_another_version_drafts_again(store: ClipStore, version: int, db: Database) -> None:
    """One card from the beginning to the end; what comes meanwhile and what fails does not keep it open."""
    await store.follow_redraft()
    assert cards(db) == []
    other, _ = await store.register("other", "e" * 64, {}, go_live=True)
    await store.follow_redraft()
    assert cards(db) == [("running", 0, f"Drafting again with version {other}: 0 of 10 clips")]
    await draft(store, other, 4)
    await store.follow_redraft()
    assert cards(db) == [("running", 40, f"Drafting again with version {other}: 4 of 10 clips, about 1 min left")]
    one = "select id from clips where draft_transcription = %s limit 1"
    db.execute(
        f"update clips set corrected_transcription = 'typi' where id = ({one})".encode(), [f"heard by {version}"]
    )
    await draft(store, other, 4)
    (last,) = await store.claim(other, 9, 600)
    await store.follow_redraft()
    assert [card[:2] for card in cards(db)] == [("running", 90)]
    await store.fail([Failed(last, Retry.LATER, "audio-missing", "no audio")])
    await store.follow_redraft()
    insert_clips(db, RUN, ["clips/new.wav"])
    await store.follow_redraft()
    assert cards(db) == [("done", 100, f"Version {other} has drafted again: 10 of 10 clips")]


async def test_what_nobody_drafts_does_not_keep_it_open(store: ClipStore, version: int, db: Database) -> None:
    """Clips in a run that is to be read aloud now, which the queue still has."""
    other, _ = await store.register("other", "e" * 64, {}, go_live=True)
    await store.follow_redraft()
    await draft(store, other, 3)
    db.execute("update runs set type = 'reading'")
    await store.follow_redraft()
    assert cards(db) == [("done", 100, f"Version {other} has drafted again: 3 of 10 clips")]


async def test_a_card_that_nobody_would_end_is_ended(
    store: ClipStore, supabase_client: AsyncClient, version: int, db: Database
) -> None:
    """Of a version that is not live any more, of a re-draft that was killed, of a training that is over."""
    other, _ = await store.register("other", "e" * 64, {}, go_live=True)
    await store.follow_redraft()
    await draft(store, other, 5)
    third, _ = await store.register("third", "d" * 64, {}, go_live=True)
    await store.card("running", 12, "half way")
    decide(db, tape="train")
    add_corrected(db, add_run(db))
    run = await Ledger(Functions(supabase_client), "worker").begin(
        bar_clips=1, bar_minutes=0.0, lease_s=60, settings={}
    )
    assert run is not None
    await store.follow_redraft()
    assert cards(db) == [
        ("done", 100, f"Version {third} is live since: it drafts what was left."),
        ("running", 12, "half way"),
        ("running", 0, f"Training version {run.version}"),
        ("running", 0, f"Drafting again with version {third}: 0 of 10 clips"),
    ]
    db.execute("update jobs set params = params || '{\"ambara_seen\": \"2026-01-01\"}' where params ? 'ambara_seen'")
    db.execute("update training_runs set status = 'failed', reason = 'out of memory'")
    await store.follow_redraft()
    assert cards(db)[1:3] == [
        ("failed", 12, "Whoever drafted here is gone; what is missing was not drafted."),
        ("failed", 0, f"Training version {run.version} failed: out of memory"),
    ]


async def test_the_editors_own_jobs_are_left_alone(store: ClipStore, version: int, db: Database) -> None:
    db.execute(
        "insert into jobs (type, status, params) "
        "values ('redraft', 'running', '{}'), ('export', 'queued', '{\"a\": 1}')"
    )
    before = db.execute("select * from jobs order by type").fetchall()
    await store.register("other", "e" * 64, {}, go_live=True)
    await store.follow_redraft()
    await draft(store, 2, 10)
    await store.follow_redraft()
    own = db.execute("select * from jobs where not params ? 'ambara_live' order by type").fetchall()
    assert own == before


async def test_a_persons_re_draft(store: ClipStore, db: Database) -> None:
    """It is shown from the first moment; its end says how it ended, whatever that was."""
    card = Card(store, "Drafting again with mg-2", 40)

    async def works(error: BaseException | None) -> Tally:
        card.tally = Tally(written=9, dropped=1)
        await until(lambda: cards(db), "it is shown")
        if error:
            raise error
        return Tally(written=38, failed=2)

    assert (await card.beside(works(None), "as version 3")).written == 38
    assert cards(db) == [("done", 100, "38 drafts written as version 3, 2 failed")]
    for error in (TemporaryError("away"), asyncio.CancelledError()):
        db.execute("delete from jobs")
        with pytest.raises(type(error)):
            await card.beside(works(error), "as version 3")
        assert cards(db) == [("failed", 25, "Drafting again with mg-2: 10 of 40 clips, and then it was stopped")]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_database_of_another_shape(shape: str, blank_database: str) -> None:
    """Nothing is said, and nothing is written."""
    with psycopg.connect(blank_database, autocommit=True) as db:
        db.execute(origin_sql(minimal=False).encode())
        db.execute(SHAPES[shape].encode())
        migrate.apply(blank_database)
        insert_clips(db, RUN, ["clips/1.wav"])
        db.execute("select ambara_register_model('base', 'f', '{}', true)")
        db.execute(
            "select ambara_submit('w', 1, (select jsonb_agg(jsonb_build_object('clip_id', c.clip_id, 'fence', c.fence, "
            "'text', 'heard')) from ambara_claim('w', 1, 9, 600) c))"
        )
        db.execute("select ambara_register_model('other', 'e', '{}', true)")
        for call in ("ambara_redraft_card()", "ambara_manual_card('w', 'running', 3, 'half way')"):
            db.execute(f"select {call}".encode())
        if shape != "no table":
            assert scalar(db, "select count(*) from jobs") == 0


async def test_a_daemon_ends_them_at_its_start(clean_stack: Any, db: Database, tmp_path: Path) -> None:
    """Whoever left them."""
    orphan = '{"ambara_worker": "gone", "ambara_seen": "2026-01-01"}'
    db.execute("insert into jobs (type, status, progress, params) values ('redraft', 'running', 40, %s)", [orphan])
    with daemon_process(clean_stack, tmp_path) as daemon:
        await until(lambda: cards(db)[0][0] == "failed", "the orphan is ended")
        assert daemon.stop() == 0
