"""The queue and the guarded write, against every writer of the table `clips`."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from postgrest.exceptions import APIError
from scripted_editor import Editor, Row
from supabase import AsyncClient
from witness import scalar

from daemon.asr.transcriber import Draft
from daemon.clips import ClipStore
from daemon.ports import Claim, Drafted, Failed, Outcome, Retry

Database = psycopg.Connection[tuple[Any, ...]]
Act = Callable[[Editor, Row], Awaitable[object]]


@pytest.fixture
def store(supabase_client: AsyncClient) -> ClipStore:
    """The daemon's side."""
    return ClipStore(supabase_client, "worker-1")


@pytest.fixture
async def version(store: ClipStore) -> int:
    """A live base."""
    number, live = await store.register("base", "f" * 64, {}, go_live=True)
    assert live is not None
    assert live.id == number
    return number


def drafted(claim: Claim, text: str = "machine text") -> Drafted:
    return Drafted(claim, Draft(text, confidence=-0.25, flags=("low-confidence",)))


async def claim_all(store: ClipStore, version: int, **more: Any) -> list[Claim]:
    return await store.claim(version, 1000, 60, **more)


def columns(db: Database, clip: str) -> tuple[Any, ...]:
    row = db.execute(
        "select draft_transcription, corrected_transcription, status, priority, corrected_at, corrected_by, file_name, "
        "paragraphs, duration_sec from clips where id = %s",
        [clip],
    ).fetchone()
    assert row is not None
    return row


async def test_only_what_the_extraction_brought_is_eligible(editor: Editor, store: ClipStore, version: int) -> None:
    """Every kind of row that a writer leaves behind, and only the untouched extracted ones are claimed."""
    run = await editor.sync_extraction([{"file_name": f"clips/{i}.wav"} for i in range(8)])
    clips = {row["file_name"]: row for row in await editor.clips(run)}
    await editor.save(clips["clips/1.wav"], "saved")
    await editor.autosave(clips["clips/2.wav"], "typi")
    await editor.discard(clips["clips/3.wav"])
    undone = await editor.discard(clips["clips/4.wav"])
    await editor.undo(clips["clips/4.wav"], undone)
    await editor.bulk_discard([clips["clips/5.wav"], clips["clips/6.wav"]])
    await editor.autosave(clips["clips/7.wav"], "")
    readings = await editor.reading_session(["psalm one", "psalm two"])
    await editor.record(readings[0], b"RIFF")
    chapter = await editor.ingest_chapter("In the beginning")
    pieces = await editor.insert_pieces(chapter, ["In the", "beginning"])
    await editor.mark_split(chapter, pieces)
    merged = await editor.ingest_chapter("And God said")
    await editor.mark_split(merged, await editor.insert_pieces(merged, ["And", "God said"]))
    await editor.merge_back(merged)

    claimed = {claim.file_name for claim in await claim_all(store, version)}

    assert claimed == {"clips/0.wav", "clips/4.wav"}


async def test_pieces_of_a_chapter_are_safe_before_the_chapter_is_marked(
    editor: Editor, store: ClipStore, version: int
) -> None:
    """The editor inserts the pieces first: in between, the chapter is still pending."""
    chapter = await editor.ingest_chapter("In the beginning")
    await editor.insert_pieces(chapter, ["In the", "beginning"])
    assert await claim_all(store, version) == []


async def test_pieces_of_a_chapter_are_safe_when_it_is_gone(
    editor: Editor, store: ClipStore, version: int, db: Database
) -> None:
    """Their text is a person's and stays. Clips of that name without a text are drafted, and so again."""
    chapter = await editor.ingest_chapter("In the beginning")
    pieces = await editor.insert_pieces(chapter, ["In the", "beginning"])
    db.execute("delete from clips where paragraphs is not null")
    empty = [{"file_name": f"chunks/{text}.wav", "draft_transcription": text} for text in (None, "", " ")]
    for row in empty:
        await editor.sync_extraction([row])
    assert scalar(db, "select ambara_status()")["held"]["person_text"] == 2
    claims = await claim_all(store, version)
    assert {claim.file_name for claim in claims} == {row["file_name"] for row in empty}
    await store.submit(version, [drafted(claim) for claim in claims])
    newer, _ = await store.register("other", "e" * 64, {}, go_live=True)
    again = await claim_all(store, newer)
    assert {claim.clip_id for claim in again} == {claim.clip_id for claim in claims}
    await store.submit(newer, [drafted(claim, "better") for claim in again])
    texts = dict(db.execute("select file_name, draft_transcription from clips").fetchall())
    assert [texts[piece["file_name"]] for piece in pieces] == ["In the", "beginning"]
    assert {texts[row["file_name"]] for row in empty} == {"better"}
    first = scalar(db, "select min(id) from drafts where clip_id = %s", claims[0].clip_id)
    assert scalar(db, "select ambara_restore('cli', %s, %s)", claims[0].clip_id, first)
    assert await claim_all(store, newer) == []
    assert scalar(db, "select count(*) from draft_queue") == len(empty)


async def test_claims_come_in_the_editors_order(editor: Editor, store: ClipStore, version: int) -> None:
    rows = [{"file_name": f"clips/{i}.wav", "priority": p} for i, p in enumerate([0, 5, 1, 5])]
    for row in rows:
        await editor.sync_extraction([row])
    assert [c.file_name for c in await claim_all(store, version)] == [f"clips/{i}.wav" for i in (1, 3, 2, 0)]


async def test_what_was_never_drafted_comes_before_what_is_drafted_again(
    editor: Editor, store: ClipStore, version: int
) -> None:
    """However far behind a long queue of stale drafts it stands; within each group the editor's order holds."""
    old = [{"file_name": f"clips/{i:02}.wav", "priority": 100 - i} for i in range(20)]
    await editor.sync_extraction(old)
    await store.submit(version, [drafted(c) for c in await claim_all(store, version)])
    new = [{"file_name": f"clips/new-{i}.wav", "priority": i} for i in range(2)]
    run = await editor.sync_extraction(new)
    second, _ = await store.register("second", "e" * 64, {}, go_live=True)
    first = [c.file_name for c in await store.claim(second, 3, 60)]
    assert first == ["clips/new-1.wav", "clips/new-0.wav", "clips/00.wav"]
    assert [c.file_name for c in await store.claim(second, 3, 60)] == [f"clips/{i:02}.wav" for i in (1, 2, 3)]
    await editor.sync_extraction([{"file_name": "clips/new-2.wav", "priority": -1}], run_id=run)
    rest = [c.file_name for c in await claim_all(store, second)]
    assert rest == ["clips/new-2.wav", *(f"clips/{i:02}.wav" for i in range(4, 20))]


async def test_the_newest_can_be_claimed_before_a_long_queue(editor: Editor, store: ClipStore, version: int) -> None:
    """The newest first, and only those that have never had a draft."""
    for i in range(4):
        await editor.sync_extraction([{"file_name": f"clips/{i}.wav", "priority": -i}])
    live, newest = await store.claim_newest(version, 2, 60)
    assert (live, [c.file_name for c in newest]) == (version, ["clips/3.wav", "clips/2.wav"])
    assert [c.file_name for c in (await store.claim_newest(version, 9, 60))[1]] == ["clips/1.wav", "clips/0.wav"]
    assert await store.claim_newest(version, 9, 60) == (version, [])
    outcomes = await store.submit(version, [drafted(c) for c in newest])
    assert set(outcomes.values()) == {Outcome.WRITTEN}
    await store.release()
    second, _ = await store.register("second", "e" * 64, {}, go_live=True)
    assert await store.claim_newest(version, 9, 60) == (second, [])
    assert [c.file_name for c in (await store.claim_newest(second, 9, 60))[1]] == ["clips/1.wav", "clips/0.wav"]


async def test_the_newest_are_few_and_nobody_elses(editor: Editor, store: ClipStore, version: int) -> None:
    """However many wait; and what may not be drafted is left alone there as well."""
    await editor.sync_extraction([{"file_name": f"clips/{i:03}.wav"} for i in range(70)])
    chapter = await editor.ingest_chapter("In the beginning")
    await editor.insert_pieces(chapter, ["In the", "beginning"])
    run = await editor.sync_extraction([{"file_name": f"clips/{i}.wav"} for i in range(2)])
    typed, free = await editor.clips(run)
    await editor.autosave(typed, "typi")
    _, newest = await store.claim_newest(version, 1000, 60)
    assert newest[0].clip_id == free["id"]
    assert len(newest) == 64 - 3, "of the 64 newest pending ones, three belong to a chapter"


TOUCHES: dict[str, Act] = {
    "saved": lambda e, c: e.save(c, "human"),
    "autosaved": lambda e, c: e.autosave(c, "hum"),
    "autosaved empty": lambda e, c: e.autosave(c, ""),
    "discarded": lambda e, c: e.discard(c),
    "bulk discarded": lambda e, c: e.bulk_discard([c]),
    "recorded": lambda e, c: e.record(c, b"RIFF"),
    "marked as split": lambda e, c: e.mark_split(c, []),
    "became a chapter": lambda e, c: e._update(c["id"], {"paragraphs": [{"text": "x"}]}),
    "prioritised": lambda e, c: e._update(c["id"], {"priority": 9}),
    "synced again": lambda e, c: e.sync_extraction([{"file_name": c["file_name"]}], run_id=c["run_id"]),
}


@pytest.mark.parametrize("touch", TOUCHES)
async def test_a_draft_is_dropped_when_anybody_touched_the_row_since_the_claim(
    touch: str, editor: Editor, store: ClipStore, version: int, db: Database
) -> None:
    """The person's row stays to the last column, and the log knows of no draft."""
    run = await editor.sync_extraction([{"file_name": "clips/0.wav"}, {"file_name": "clips/1.wav"}])
    claims = {c.file_name: c for c in await claim_all(store, version)}
    clip = (await editor.clips(run))[0]
    await TOUCHES[touch](editor, clip)
    before = columns(db, clip["id"])
    other = next(c for c in claims.values() if c.clip_id != clip["id"])

    outcomes = await store.submit(version, [drafted(c) for c in claims.values()])

    assert outcomes == {clip["id"]: Outcome.DROPPED, other.clip_id: Outcome.WRITTEN}
    assert columns(db, clip["id"]) == before
    assert db.execute("select clip_id::text, text, confidence, flags from drafts").fetchall() == [
        (other.clip_id, "machine text", -0.25, ["low-confidence"])
    ]


async def test_a_run_that_turns_into_a_reading_is_left_alone(
    editor: Editor, store: ClipStore, version: int, db: Database
) -> None:
    run = await editor.sync_extraction([{"file_name": "clips/0.wav"}])
    (claim,) = await claim_all(store, version)
    db.execute("update runs set type = 'reading' where id = %s", [run])
    assert await store.submit(version, [drafted(claim)]) == {claim.clip_id: Outcome.DROPPED}


async def test_a_run_deleted_in_the_middle_drops_its_drafts(editor: Editor, store: ClipStore, version: int) -> None:
    run = await editor.sync_extraction([{"file_name": "clips/0.wav"}])
    (claim,) = await claim_all(store, version)
    await editor.delete_run(run)
    assert await store.submit(version, [drafted(claim)]) == {claim.clip_id: Outcome.DROPPED}


async def test_a_row_held_by_an_editor_is_busy_and_never_waited_for(
    editor: Editor, store: ClipStore, version: int, clean_stack: Any, db: Database
) -> None:
    """Waiting could end in a deadlock whose victim is the person's statement."""
    await editor.sync_extraction([{"file_name": "clips/0.wav"}])
    (claim,) = await claim_all(store, version)
    with psycopg.connect(clean_stack.db_url) as holder:
        holder.execute("update clips set priority = priority where id = %s", [claim.clip_id])
        assert await store.submit(version, [drafted(claim)]) == {claim.clip_id: Outcome.BUSY}
        holder.rollback()
    assert await store.submit(version, [drafted(claim)]) == {claim.clip_id: Outcome.WRITTEN}


async def test_the_daemon_writes_the_draft_column_alone(
    editor: Editor, store: ClipStore, version: int, db: Database
) -> None:
    await editor.sync_extraction([{"file_name": "clips/0.wav", "duration_sec": 3.5}])
    (claim,) = await claim_all(store, version)
    before = columns(db, claim.clip_id)
    await store.submit(version, [drafted(claim)])
    assert columns(db, claim.clip_id) == ("machine text", *before[1:])
    assert await store.snapshot() == (version, 0)


async def test_a_clip_is_settled_once_and_a_lost_answer_changes_nothing(
    editor: Editor, store: ClipStore, version: int, db: Database
) -> None:
    await editor.sync_extraction([{"file_name": "clips/0.wav"}])
    (claim,) = await claim_all(store, version)
    await store.submit(version, [drafted(claim)])
    assert await store.submit(version, [drafted(claim)]) == {claim.clip_id: Outcome.DROPPED}
    assert await claim_all(store, version) == []
    assert db.execute("select count(*) from drafts").fetchone() == (1,)


async def test_an_undone_discard_keeps_its_draft(editor: Editor, store: ClipStore, version: int) -> None:
    """The row changed since, but the draft in it is still ours."""
    run = await editor.sync_extraction([{"file_name": "clips/0.wav"}])
    await store.submit(version, [drafted(c) for c in await claim_all(store, version)])
    (clip,) = await editor.clips(run)
    await editor.undo(clip, await editor.discard(clip))
    assert await claim_all(store, version) == []


async def test_a_clip_synced_again_is_drafted_again(editor: Editor, store: ClipStore, version: int) -> None:
    """Somebody else wrote a stock draft over ours."""
    run = await editor.sync_extraction([{"file_name": "clips/0.wav"}])
    await store.submit(version, [drafted(c) for c in await claim_all(store, version)])
    await editor.sync_extraction([{"file_name": "clips/0.wav"}], run_id=run)
    assert len(await claim_all(store, version)) == 1


async def test_two_workers_share_the_queue(editor: Editor, supabase_client: AsyncClient, version: int) -> None:
    await editor.sync_extraction([{"file_name": f"clips/{i}.wav"} for i in range(30)])
    one, two = ClipStore(supabase_client, "one"), ClipStore(supabase_client, "two")
    first = await one.claim(version, 20, 60)
    second = await two.claim(version, 20, 60)
    assert (len(first), len(second)) == (20, 10)
    assert not {c.clip_id for c in first} & {c.clip_id for c in second}
    assert await two.submit(version, [drafted(first[0])]) == {first[0].clip_id: Outcome.DROPPED}


async def test_an_ended_lease_is_taken_over_under_a_higher_fence(
    editor: Editor, supabase_client: AsyncClient, version: int, db: Database
) -> None:
    await editor.sync_extraction([{"file_name": "clips/0.wav"}])
    dead, alive = ClipStore(supabase_client, "dead"), ClipStore(supabase_client, "alive")
    (old,) = await dead.claim(version, 1, 60)
    assert await alive.claim(version, 1, 60) == []
    db.execute("update draft_state set lease_until = now() - interval '1 second'")
    (new,) = await alive.claim(version, 1, 60)
    assert new.fence > old.fence
    assert await dead.submit(version, [drafted(old, "late")]) == {old.clip_id: Outcome.DROPPED}
    assert await alive.submit(version, [drafted(new, "in time")]) == {new.clip_id: Outcome.WRITTEN}


async def test_released_claims_are_free_at_once(editor: Editor, store: ClipStore, version: int) -> None:
    await editor.sync_extraction([{"file_name": f"clips/{i}.wav"} for i in range(2)])
    claims = await claim_all(store, version)
    await store.release([claims[0].clip_id])
    assert [c.clip_id for c in await claim_all(store, version)] == [claims[0].clip_id]
    await store.release()
    assert len(await claim_all(store, version)) == 2


async def test_missing_audio_is_tried_again_later_and_nothing_waits_behind_it(
    editor: Editor, store: ClipStore, version: int, db: Database
) -> None:
    await editor.sync_extraction([{"file_name": "clips/0.wav", "priority": 1}, {"file_name": "clips/1.wav"}])
    missing, other = await claim_all(store, version)
    await store.fail([Failed(missing, Retry.LATER, reason="audio-missing", message="no audio")])
    await store.release([other.clip_id])
    assert [c.clip_id for c in await claim_all(store, version)] == [other.clip_id]
    for attempt, seconds in enumerate([30, 60, 120, 240], start=1):
        wait, attempts = db.execute(
            "select extract(epoch from retry_at - now())::float, attempts from draft_state where clip_id = %s",
            [missing.clip_id],
        ).fetchone() or (0, 0)
        assert attempts == attempt
        assert seconds * 0.7 < wait <= seconds * 1.2
        db.execute("update draft_state set retry_at = now() where clip_id = %s", [missing.clip_id])
        (again,) = await claim_all(store, version)
        await store.fail([Failed(again, Retry.LATER, reason="audio-missing", message="no audio")])


async def test_a_broken_file_is_left_until_the_row_changes_or_another_version_is_live(
    editor: Editor, store: ClipStore, version: int, db: Database
) -> None:
    run = await editor.sync_extraction([{"file_name": "clips/0.wav"}])

    async def fail() -> None:
        (claim,) = await claim_all(store, number)
        await store.fail([Failed(claim, Retry.NEVER, reason="audio-empty", message="empty")])
        assert await claim_all(store, number) == []

    number = version
    await fail()
    status = db.execute("select ambara_status()").fetchone()
    assert status is not None
    assert status[0]["queue"] == {"failed": 1}
    assert status[0]["failures"] == [{"reason": "audio-empty", "message": "empty", "clips": 1, "state": "failed"}]
    await editor.sync_extraction([{"file_name": "clips/0.wav", "duration_sec": 2}], run_id=run)
    await fail()
    number, _ = await store.register("better", "e" * 64, {}, go_live=True)
    await fail()


async def test_another_live_version_makes_everything_pending_stale(
    editor: Editor, store: ClipStore, version: int
) -> None:
    await editor.sync_extraction([{"file_name": f"clips/{i}.wav"} for i in range(3)])
    await store.submit(version, [drafted(c) for c in await claim_all(store, version)])
    second, live = await store.register("second", "e" * 64, {}, go_live=True)
    assert live is not None
    assert live.id == second
    assert await store.snapshot() == (second, 3)
    assert await claim_all(store, version) == []
    await store.submit(second, [drafted(c) for c in await claim_all(store, second)])
    # Back to the first: its drafts are older than the second's, so they are made again.
    await store.register("base", "f" * 64, {}, go_live=True)
    assert await store.snapshot() == (version, 3)


async def test_a_batch_in_flight_when_another_version_goes_live_is_drafted_again(
    editor: Editor, store: ClipStore, version: int
) -> None:
    await editor.sync_extraction([{"file_name": "clips/0.wav"}])
    claims = await claim_all(store, version)
    second, _ = await store.register("second", "e" * 64, {}, go_live=True)
    assert list((await store.submit(version, [drafted(claims[0])])).values()) == [Outcome.WRITTEN]
    assert await store.snapshot() == (second, 1)


async def test_a_base_never_replaces_a_trained_version(store: ClipStore, version: int, db: Database) -> None:
    db.execute("update model_versions set kind = 'trained' where id = %s", [version])
    other, live = await store.register("other base", "e" * 64, {}, go_live=True)
    assert live is not None
    assert live.id == version != other


async def test_a_manual_redraft_takes_what_the_live_version_drafted_and_is_left_in_peace(
    editor: Editor, store: ClipStore, supabase_client: AsyncClient, version: int
) -> None:
    run = await editor.sync_extraction([{"file_name": f"clips/{i}.wav"} for i in range(3)])
    await store.submit(version, [drafted(c) for c in await claim_all(store, version)])
    clips = await editor.clips(run)
    await editor.autosave(clips[0], "typing")
    person = ClipStore(supabase_client, "person")
    assert await person.count_manual("e" * 64, [run]) == 2
    manual, live = await person.register("theirs", "e" * 64, {}, go_live=False)
    assert live is not None
    assert live.id == version
    assert await claim_all(person, manual, manual=True, runs=[str(uuid.uuid4())]) == []
    claims = await claim_all(person, manual, manual=True, runs=[run])
    assert {c.clip_id for c in claims} == {c["id"] for c in clips[1:]}
    await person.submit(manual, [drafted(claims[0], "theirs")])
    await person.fail([Failed(claims[1], Retry.NEVER, reason="audio-empty", message="empty")], manual=True)
    assert await claim_all(person, manual, manual=True, runs=[run]) == []
    assert await person.count_manual("e" * 64, [run]) == 1
    # The live daemon does not draft over what a person asked for.
    assert claims[0].clip_id not in {c.clip_id for c in await claim_all(store, version)}


async def test_what_people_see_of_the_daemons_tables(
    editor: Editor, store: ClipStore, version: int, db: Database
) -> None:
    """Signed-in people read versions and trainings, write neither, and see nothing of the rest.

    An API server may grant tables to every role; then it is row level security that hides the rows.
    """
    run = await editor.sync_extraction([{"file_name": "clips/0.wav"}])
    await store.submit(version, [drafted(c) for c in await claim_all(store, version)])
    await store.beat({})
    db.execute("insert into training_runs default values")
    db.execute("insert into training_samples select t.id, c.id, '' from training_runs t, clips c")
    assert [row["id"] for row in await select(editor.person, "model_versions")] == [version]
    assert len(await select(editor.person, "training_runs")) == 1
    assert len(await editor.clips(run)) == 1
    for table in ("drafts", "draft_state", "training_samples", "ambara_daemons"):
        assert await select(editor.person, table) == []
    for table in ("model_versions", "training_runs", "drafts", "draft_state", "training_samples", "ambara_daemons"):
        before = db.execute(f"select to_jsonb(t) from {table} t".encode()).fetchall()
        column = before[0][0].keys().__iter__().__next__()
        with contextlib.suppress(APIError):
            await editor.person.table(table).delete().not_.is_(column, "null").execute()
        assert db.execute(f"select to_jsonb(t) from {table} t".encode()).fetchall() == before
    for function, arguments in {"ambara_snapshot": {}, "ambara_release": {"p_worker": "worker-1"}}.items():
        with pytest.raises(APIError, match="42501"):
            await editor.person.rpc(function, arguments).execute()


async def select(client: AsyncClient, table: str) -> list[Row]:
    """What a client sees of a table."""
    try:
        return [dict(row) for row in (await client.table(table).select("*").execute()).data]
    except APIError as error:
        if error.code == "42501":
            return []
        raise


async def test_corrections_are_counted_by_status_and_text(editor: Editor, db: Database) -> None:
    """Not by `corrected_at`, which a recording does not set; a split record and an empty text are no corrections."""
    run = await editor.sync_extraction([{"file_name": f"clips/{i}.wav", "duration_sec": 30} for i in range(4)])
    clips = await editor.clips(run)
    await editor.save(clips[0], "one")
    await editor.save(clips[1], "  ")
    await editor.mark_split(clips[2], [])
    readings = await editor.reading_session(["psalm"])
    await editor.record(readings[0], b"RIFF")

    def counted() -> Any:
        row = db.execute("select ambara_status() -> 'new_corrections'").fetchone()
        assert row is not None
        return row[0]

    assert counted()["clips"] == 2
    db.execute("insert into training_runs default values")
    db.execute(
        "insert into training_samples (run_id, clip_id, text_md5, audio_tag) "
        "select r.id, t.clip_id, t.text_md5, t.audio_tag from training_runs r, ambara_trainable('clips') t"
    )
    assert counted()["clips"] == 0
    await editor.save(clips[0], "one, better")
    assert counted() == {"clips": 1, "minutes": 0.5}


async def test_a_change_by_an_older_transaction_is_seen(
    editor: Editor, store: ClipStore, version: int, clean_stack: Any, db: Database
) -> None:
    """`updated_at` is when a transaction began: a sync that began before our write and ended after it looks older."""
    run = await editor.sync_extraction([{"file_name": "clips/0.wav"}, {"file_name": "clips/1.wav"}])
    one, two = await claim_all(store, version)
    with psycopg.connect(clean_stack.db_url) as slow:
        slow.execute("select 1")
        await store.submit(version, [drafted(one)])
        await store.fail([Failed(two, Retry.NEVER, reason="audio-empty", message="empty")])
        slow.execute("update clips set draft_transcription = 'stock again' where run_id = %s", [run])
        slow.commit()
    assert {c.clip_id for c in await claim_all(store, version)} == {one.clip_id, two.clip_id}


async def test_an_old_fence_of_the_same_worker_is_worth_nothing(
    editor: Editor, store: ClipStore, version: int, db: Database
) -> None:
    await editor.sync_extraction([{"file_name": "clips/0.wav"}])
    (old,) = await claim_all(store, version)
    db.execute("update draft_state set lease_until = now() - interval '1 second'")
    (new,) = await claim_all(store, version)
    assert await store.submit(version, [drafted(old, "old")]) == {old.clip_id: Outcome.DROPPED}
    await store.fail([Failed(old, Retry.NEVER, reason="audio-empty", message="empty")])
    assert db.execute("select reason, attempts, worker from draft_state").fetchall() == [(None, 0, store.worker)]
    assert await store.submit(version, [drafted(new, "new")]) == {new.clip_id: Outcome.WRITTEN}


async def test_only_the_holder_renews_and_releases(
    editor: Editor, store: ClipStore, supabase_client: AsyncClient, version: int, db: Database
) -> None:
    await editor.sync_extraction([{"file_name": "clips/0.wav"}])
    (claim,) = await store.claim(version, 1, 20)
    lease = "select extract(epoch from lease_until - now())::float, worker from draft_state"
    other = ClipStore(supabase_client, "other")
    await other.renew([claim.clip_id], 500)
    await other.release([claim.clip_id])
    await other.release()
    ((left, worker),) = db.execute(lease).fetchall()
    assert (left < 21, worker) == (True, store.worker)
    await store.renew([claim.clip_id], 500)
    ((left, _),) = db.execute(lease).fetchall()
    assert left > 400


async def test_a_dropped_draft_frees_its_claim(editor: Editor, store: ClipStore, version: int, db: Database) -> None:
    run = await editor.sync_extraction([{"file_name": "clips/0.wav"}])
    (claim,) = await claim_all(store, version)
    await editor.autosave((await editor.clips(run))[0], "typ")
    await store.submit(version, [drafted(claim)])
    assert db.execute("select worker, lease_until from draft_state").fetchall() == [(None, None)]


async def test_claims_pass_by_rows_that_an_editor_holds(
    editor: Editor, store: ClipStore, version: int, clean_stack: Any
) -> None:
    """Those at the head of the queue are held, and those behind them are claimed at once, without waiting."""
    rows = [{"file_name": f"clips/{i}.wav", "priority": 9 - i} for i in range(6)]
    run = await editor.sync_extraction(rows)
    with psycopg.connect(clean_stack.db_url) as holder:
        holder.execute("update clips set priority = priority where run_id = %s and priority > 6", [run])
        claims = await store.claim(version, 3, 60)
        holder.rollback()
    assert [c.file_name for c in claims] == ["clips/3.wav", "clips/4.wav", "clips/5.wav"]


async def test_two_claims_at_the_same_moment_share_no_clip(
    editor: Editor, supabase_client: AsyncClient, version: int
) -> None:
    await editor.sync_extraction([{"file_name": f"clips/{i}.wav"} for i in range(200)])
    workers = [ClipStore(supabase_client, f"w{i}") for i in range(8)]
    claims = await asyncio.gather(*(worker.claim(version, 25, 60) for worker in workers))
    assert [len(mine) for mine in claims] == [25] * 8
    assert len({c.clip_id for mine in claims for c in mine}) == 200


async def test_a_persons_delete_never_waits_in_a_circle_with_the_daemon(
    editor: Editor, store: ClipStore, version: int, clean_stack: Any, db: Database
) -> None:
    """A delete locks the book-keeping of its clips; renewing, failing and releasing pass those rows by."""
    await editor.sync_extraction([{"file_name": f"clips/{i}.wav"} for i in range(3)])
    claims = await claim_all(store, version)
    with psycopg.connect(clean_stack.db_url) as person:
        person.execute("select from draft_state where clip_id = %s for update", [claims[0].clip_id])
        # Waiting would last until the end of this block, and the statements would never return.
        async with asyncio.timeout(15):
            await store.renew([c.clip_id for c in claims], 900)
            await store.fail([Failed(c, Retry.LATER, "audio-missing", "no audio") for c in claims[:2]])
            await store.release()
        person.rollback()
    held = "select clip_id::text from draft_state where lease_until is not null"
    assert db.execute(held).fetchall() == [(claims[0].clip_id,)]


async def test_a_persons_own_failed_try_does_not_keep_the_live_version_from_trying(
    editor: Editor, store: ClipStore, supabase_client: AsyncClient, version: int
) -> None:
    run = await editor.sync_extraction([{"file_name": "clips/0.wav"}])
    person = ClipStore(supabase_client, "person")
    manual, _ = await person.register("theirs", "e" * 64, {}, go_live=False)
    (claim,) = await claim_all(person, manual, manual=True, runs=[run])
    await person.fail([Failed(claim, Retry.NEVER, "audio-empty", "empty")], manual=True)
    assert len(await claim_all(store, version)) == 1
