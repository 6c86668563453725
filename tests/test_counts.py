"""What status and training count is what a plain look at every clip would count, whoever has written what."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from operator import itemgetter
from typing import Any

import psycopg
import pytest
from corrections import add_corrected, add_run, decide
from plain_counts import Database, counted, plainly
from scripted_editor import Editor
from supabase import AsyncClient, acreate_client
from witness import scalar

from daemon import migrate
from daemon.asr.transcriber import Draft
from daemon.clips import ClipStore
from daemon.database import Database as Functions
from daemon.learning.ledger import Ledger
from daemon.local.origin import origin_sql
from daemon.ports import Claim, Drafted, Failed, Retry

WAV = b"RIFF"
LEASE_S = 600.0


@pytest.fixture
async def editor(clean_stack: Any, supabase_client: AsyncClient) -> AsyncIterator[Editor]:
    """A person at the editor, beside the scripts."""
    person = await acreate_client(clean_stack.url, clean_stack.anon_key)
    token = clean_stack.mint("authenticated", sub=str(uuid.uuid4()))
    person.postgrest.auth(token)
    person.storage.session.headers["Authorization"] = f"Bearer {token}"
    yield Editor(person, supabase_client)
    await person.realtime.close()


@pytest.fixture
def store(supabase_client: AsyncClient) -> ClipStore:
    return ClipStore(supabase_client, "worker")


@pytest.fixture
def ledger(supabase_client: AsyncClient) -> Ledger:
    return Ledger(Functions(supabase_client), "worker")


@pytest.fixture(autouse=True)
def plain(db: Database) -> None:
    plainly(db)


def heard(claim: Claim, text: str = "heard") -> Drafted:
    return Drafted(claim, Draft(text, confidence=-0.2))


def failed(claim: Claim, retry: Retry = Retry.NEVER, reason: str = "audio-broken") -> Failed:
    return Failed(claim, retry, reason, f"no audio in {claim.file_name}")


def expire(db: Database) -> None:
    db.execute("update draft_state set lease_until = now() - interval '1 s' where lease_until is not null")


async def test_every_writer_of_the_editor(editor: Editor, store: ClipStore, db: Database) -> None:
    assert counted(db)["queue"] == {}
    await store.register("base", "f" * 64, {}, go_live=True)
    run = await editor.sync_extraction([{"file_name": f"clips/{i}.wav", "duration_sec": 6} for i in range(10)])
    assert counted(db)["queue"] == {"ready": 10}
    clips = {row["file_name"]: row for row in await editor.clips(run)}
    await editor.save(clips["clips/0.wav"], "spoken words")
    await editor.save(clips["clips/1.wav"], " \t ")
    await editor.autosave(clips["clips/2.wav"], "typi")
    await editor.autosave(clips["clips/3.wav"], "")
    before = await editor.discard(clips["clips/4.wav"])
    await editor.bulk_discard([clips["clips/5.wav"], clips["clips/6.wav"]])
    assert counted(db)["held"] == {"person_at_work": 2, "person_text": 0}
    await editor.undo(clips["clips/4.wav"], before)
    await editor.save(clips["clips/0.wav"], "better words")
    assert counted(db)["queue"] == {"ready": 4}

    readings = await editor.reading_session(["psalm one", "psalm two", "psalm three"])
    await editor.record(readings[0], WAV)
    assert counted(db)["held"]["person_text"] == 2
    await editor.ingest_chapter("In the beginning", run)
    chapter = await editor.ingest_chapter("And God said")
    pieces = await editor.insert_pieces(chapter, ["And", "God said"])
    assert counted(db)["held"]["person_text"] == 6
    await editor.mark_split(chapter, pieces)
    await editor.merge_back(chapter)
    await editor.record(pieces[0], WAV)
    assert counted(db)["clips"] == {"pending": 11, "corrected": 4, "discarded": 2}
    await editor.sync_extraction(
        [{"file_name": f"clips/{i}.wav", "draft_transcription": "new"} for i in range(9)], run_id=run
    )
    counted(db)
    await editor.delete_run(run)
    assert counted(db)["queue"] == {}


async def test_every_state_of_a_clip(editor: Editor, store: ClipStore, ledger: Ledger, db: Database) -> None:
    version, _ = await store.register("base", "f" * 64, {}, go_live=True)
    run = await editor.sync_extraction([{"file_name": f"clips/{i:02}.wav", "priority": -i} for i in range(20)])
    clips = await editor.clips(run)
    await store.submit(version, [heard(each) for each in await store.claim(version, 8, LEASE_S)])
    a, b, c, d, *_ = await store.claim(version, 6, LEASE_S)
    await store.fail([failed(a), failed(b, Retry.LATER), failed(c, Retry.LATER, "audio-missing"), failed(d)])
    assert counted(db)["queue"] == {"drafted": 8, "failed": 2, "retrying": 2, "claimed": 2, "ready": 6}
    assert len(counted(db)["failures"]) == 3
    expire(db)
    assert counted(db)["queue"] == {"drafted": 8, "failed": 2, "retrying": 2, "ready": 8}

    # What failed: changed by a person, its time has come, taken up again and left.
    db.execute("update clips set priority = 5 where id = %s", [a.clip_id])
    db.execute("update draft_state set retry_at = now() - interval '1 s' where clip_id = %s", [b.clip_id])
    assert counted(db)["queue"] == {"drafted": 8, "failed": 1, "retrying": 1, "ready": 10}
    await store.claim(version, 1, LEASE_S)
    counted(db)
    expire(db)
    # What is drafted: written over, and written back; after it has failed meanwhile, too.
    await editor.scripts.table("clips").update({"draft_transcription": "stock"}).eq("id", clips[0]["id"]).execute()
    assert counted(db)["queue"]["drafted"] == 7
    again = [each for each in await store.claim(version, 20, LEASE_S) if each.clip_id == clips[0]["id"]]
    await store.fail([failed(each) for each in again])
    await store.release()
    assert counted(db)["queue"]["failed"] == 2
    await editor.scripts.table("clips").update({"draft_transcription": "heard"}).eq("id", clips[0]["id"]).execute()
    assert counted(db)["queue"]["drafted"] == 8

    # A person's own model, and drafts that are given back.
    mine, _ = await store.register("mine", "a" * 64, {}, go_live=False)
    e, f, *_ = await store.claim(mine, 6, LEASE_S, manual=True, runs=[run])
    counted(db)
    await store.submit(mine, [heard(e, "mine")])
    await store.fail([failed(f)], manual=True)
    expire(db)
    counted(db)
    await store.release()
    oldest = scalar(db, "select min(id) from drafts where clip_id = %s", clips[1]["id"])
    assert await ledger.restore(clips[1]["id"], oldest)
    counted(db)

    # Another version goes live, drafts some, and the one before comes back.
    other, _ = await store.register("other", "e" * 64, {}, go_live=True)
    assert counted(db)["queue"] == {"ready": 20}
    await store.submit(other, [heard(each, "other") for each in await store.claim(other, 9, LEASE_S)])
    await store.fail([failed(each) for each in await store.claim(other, 2, LEASE_S)])
    assert await ledger.restore(clips[19]["id"], oldest) is False
    oldest = scalar(db, "select min(id) from drafts where clip_id = %s", clips[2]["id"])
    assert await ledger.restore(clips[2]["id"], oldest)
    assert counted(db)["queue"]["failed"] == 2
    assert await ledger.promote(version, expected=None, reason="better")
    counted(db)
    await editor.autosave(clips[3], "typi")
    await editor.save(clips[4], "typed")
    await store.submit(version, [heard(each) for each in await store.claim(version, 50, LEASE_S)])
    assert "ready" not in counted(db)["queue"]


async def test_what_the_queue_does_not_know(editor: Editor, store: ClipStore, db: Database) -> None:
    """A run that is to be read aloud now, a chapter that came later, clips that came while the trigger was off."""
    version, _ = await store.register("base", "f" * 64, {}, go_live=True)
    rows = [{"file_name": f"chunks/{i}.wav", "draft_transcription": None} for i in range(4)]
    run = await editor.sync_extraction(rows)
    other = await editor.sync_extraction([{"file_name": f"clips/{i}.wav"} for i in range(6)], label="other")
    for_both = await store.claim(version, 7, LEASE_S)
    await store.submit(version, [heard(each) for each in for_both[:4]])
    await store.fail([failed(each) for each in for_both[4:6]])
    assert counted(db)["queue"] == {"drafted": 4, "failed": 2, "claimed": 1, "ready": 3}
    await editor.ingest_chapter("In the beginning", run)
    assert counted(db)["held"]["person_text"] == 5
    db.execute("update runs set type = 'reading' where id = %s", [other])
    assert counted(db)["queue"] == {}
    db.execute("update runs set type = 'extraction' where id = %s", [other])
    db.execute("delete from clips where paragraphs is not null")
    counted(db)
    with db.transaction():
        db.execute("set local session_replication_role = replica")
        db.execute(
            "insert into clips (run_id, file_name) select %s, 'clips/late ' || n from generate_series(1, 3) n", [run]
        )
    assert counted(db)["queue"]["ready"] == 6
    await store.mend_queue()
    counted(db)
    # A queue that was made anew knows of no failure.
    db.execute("delete from draft_queue")
    await store.mend_queue()
    assert counted(db)["queue"] == {"drafted": 4, "failed": 2, "claimed": 1, "ready": 6}


async def test_what_there_is_to_learn(editor: Editor, ledger: Ledger, store: ClipStore, db: Database) -> None:
    """Words that changed, audio that changed or is gone, sides that changed, runs that failed."""
    audio = {f"clips/{i}.wav": WAV for i in range(6)}
    rows = [{"file_name": name, "duration_sec": 6, "source_file": f"tape {i % 3}"} for i, name in enumerate(audio)]
    run = await editor.sync_extraction([*rows, {"file_name": "clips/mute.wav", "duration_sec": 6}], audio=audio)
    clips = sorted(await editor.clips(run), key=itemgetter("file_name"))
    for each in clips:
        await editor.save(each, "spoken words")
    assert counted(db)["new_corrections"]["clips"] == 7
    decide(db, **{"tape 0": "train", "tape 1": "held_out", "tape.mp3": "train"})
    assert counted(db)["new_corrections"]["clips"] == 5
    begun = await ledger.begin(bar_clips=1, bar_minutes=0.0, lease_s=LEASE_S, settings={})
    assert begun is not None
    assert counted(db)["new_corrections"]["clips"] == 2
    assert await queued(ledger, db) == 2
    await ledger.progress(begun, {"phase": "training", "step": 1}, LEASE_S)
    counted(db)
    await ledger.fail(begun, "out of memory", {})
    assert counted(db)["training"]["failure"]["message"] == "out of memory"
    await editor.save(clips[0], "other words")
    counted(db)
    # Audio alone tells nobody of itself.
    await editor.upload(run, clips[3]["file_name"], WAV * 2)
    assert await store.mend_clips("clips", None) == (1, None)
    counted(db)
    await editor.scripts.storage.from_("clips").remove([f"{run}/{clips[3]['file_name']}"])
    counted(db)
    db.execute("update clips set source_file = 'tape 1' where id = %s", [clips[0]["id"]])
    counted(db)
    db.execute("update clips set duration_sec = 31 where id = %s", [clips[1]["id"]])
    for words in ("", "\u00a0", "\u2003x", "ʻ", '{"_splitOrigin": true}', ' {"a": "_splitOrigin"}', '{"_splitOrigin'):
        db.execute("update clips set corrected_transcription = %s where id = %s", [words, clips[2]["id"]])
        counted(db)
    await ledger.ask_training()
    begun = await ledger.begin(bar_clips=1, bar_minutes=0.0, lease_s=LEASE_S, settings={})
    assert begun is not None
    await ledger.finish(begun, "trained", "c" * 64, {})
    assert counted(db)["candidate"]["name"] == "trained"
    left = await queued(ledger, db)
    assert counted(db)["new_corrections"]["clips"] <= left < 7
    assert await store.mend_clips("clips", None) == (0, None)


async def queued(ledger: Ledger, db: Database) -> int:
    """How many corrections are in their queue once what is done was taken out; nothing is counted otherwise."""
    before = counted(db)
    await ledger.edits.settle()
    after = counted(db)
    assert {**after, "now": None} == {**before, "now": None}
    return int(scalar(db, "select count(*) from correction_queue"))


async def test_what_a_person_changes_at_this_moment_stays_in_the_queue(
    editor: Editor, ledger: Ledger, db: Database, clean_stack: Any
) -> None:
    """What was learned is about to be taken out of it: nobody waits, and nothing is lost."""
    run = await editor.sync_extraction([{"file_name": f"clips/{i}.wav", "duration_sec": 6} for i in range(4)])
    clips = await editor.clips(run)
    for each in clips:
        await editor.save(each, "spoken words")
    decide(db, **{"tape.mp3": "train"})
    assert await ledger.begin(bar_clips=1, bar_minutes=0.0, lease_s=LEASE_S, settings={}) is not None
    with psycopg.connect(clean_stack.db_url) as person:
        person.execute("update clips set corrected_transcription = 'other words' where id = %s", [clips[0]["id"]])
        assert await queued(ledger, db) == 1
    assert counted(db)["new_corrections"]["clips"] == 1
    assert await queued(ledger, db) == 1
    await editor.save(clips[1], "better words")
    assert counted(db)["new_corrections"]["clips"] == 2
    # Restored without triggers, more of them than one page.
    with db.transaction():
        db.execute("set local session_replication_role = replica")
        db.execute("delete from correction_queue")
    assert scalar(db, "select ambara_training() -> 'new_clips'") == 0
    after, found = None, 0
    while True:
        told = scalar(db, "select ambara_mend_clips('clips', %s, 1)", after)
        found, after = found + told["wrong"], told["after"]
        if after is None:
            break
    assert found == 2
    assert counted(db)["new_corrections"]["clips"] == 2


async def test_many_recordings(db: Database) -> None:
    """They are counted one after the other."""
    run = add_run(db)
    for number in range(12):
        add_corrected(db, run, 2, recording=f"tape {number}" if number else "")
    add_corrected(db, run, words=" ", recording="nothing said")
    long = scalar(db, "select string_agg(md5(n::text), '') from generate_series(1, 400) n")
    add_corrected(db, run, recording=long)
    decide(db, **{f"tape {number}": "held_out" for number in range(3, 6)})
    assert counted(db)["training"]["recordings"] == 13
    assert scalar(db, "select count(*) from ambara_recorded(5)") == 5


def test_a_database_without_the_later_columns(blank_database: str) -> None:
    with psycopg.connect(blank_database, autocommit=True) as db:
        db.execute(origin_sql(minimal=True).encode())
        migrate.apply(blank_database)
        plainly(db)
        db.execute("insert into runs (label) values ('r')")
        db.execute("insert into clips (run_id, file_name) select id, 'chunks/' || n from runs, generate_series(1, 3) n")
        assert counted(db)["queue"] == {"ready": 3}
        db.execute("alter table runs add column type text not null default 'reading'")
        db.execute("alter table clips add column paragraphs jsonb")
        assert counted(db)["held"]["person_text"] == 3
        db.execute("update runs set type = 'extraction'")
        db.execute("update clips set paragraphs = '[]' where file_name = 'chunks/1'")
        assert counted(db)["held"]["person_text"] == 3
