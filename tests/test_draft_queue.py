"""The table that the queue is looked up in: it follows `clips`, stands in nobody's way, and is mended."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from supabase import AsyncClient
from witness import Database, insert_clips, scalar

from daemon import clips
from daemon.asr.transcriber import Draft
from daemon.clips import ClipStore
from daemon.ports import Claim, Drafted, Failed, Retry

RUN = "00000000-0000-4000-8000-000000000001"
ROWS = """
select c.file_name, q.priority, q.drafted, q.quiet_seq > 0
from draft_queue q join clips c on c.id = q.clip_id order by c.file_name
"""


@pytest.fixture
def store(supabase_client: AsyncClient) -> ClipStore:
    return ClipStore(supabase_client, "worker")


@pytest.fixture
async def version(store: ClipStore) -> int:
    number, _ = await store.register("base", "f" * 64, {}, go_live=True)
    return number


@pytest.fixture
def three(db: Database) -> Database:
    insert_clips(db, RUN, ["clips/1.wav", "clips/2.wav", "clips/3.wav"])
    return db


def names(claims: list[Claim]) -> list[str]:
    return sorted(claim.file_name for claim in claims)


async def drafted(store: ClipStore, version: int) -> list[Claim]:
    """Draft everything."""
    claims = await store.claim(version, 100, 60)
    await store.submit(version, [Drafted(claim, Draft("heard", confidence=-0.2)) for claim in claims])
    return claims


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ("status = 'corrected', corrected_transcription = 'x'", None),
        ("status = 'discarded'", None),
        ("corrected_transcription = ''", None),
        ("paragraphs = '[]'", None),
        ("draft_transcription = 'stock again'", ("clips/1.wav", 0.0, True, False)),
        ("draft_transcription = 'heard'", ("clips/1.wav", 0.0, True, True)),
        ("priority = 5", ("clips/1.wav", 5.0, True, True)),
    ],
)
async def test_it_follows_what_people_do(
    change: str, left: object, store: ClipStore, version: int, three: Database
) -> None:
    assert [row[2:] for row in three.execute(ROWS).fetchall()] == [(False, False)] * 3
    await drafted(store, version)
    assert [row[2:] for row in three.execute(ROWS).fetchall()] == [(True, True)] * 3
    three.execute(f"update clips set {change} where file_name = 'clips/1.wav'".encode())
    assert [row for row in three.execute(ROWS).fetchall() if row[0] == "clips/1.wav"] == ([left] if left else [])
    three.execute("update clips set status = 'pending', corrected_transcription = null, paragraphs = null")
    assert len(three.execute(ROWS).fetchall()) == 3
    three.execute("delete from runs")
    assert three.execute(ROWS).fetchall() == []


async def test_a_second_extraction_is_queued_row_by_row(store: ClipStore, version: int, three: Database) -> None:
    """One statement that adds a clip and changes another."""
    await drafted(store, version)
    three.execute(
        "insert into clips (run_id, file_name, draft_transcription) "
        "values (%s, 'clips/1.wav', 'stock again'), (%s, 'clips/4.wav', 'stock') "
        "on conflict (run_id, file_name) do update set draft_transcription = excluded.draft_transcription",
        [RUN, RUN],
    )
    assert names(await store.claim(version, 100, 60)) == ["clips/1.wav", "clips/4.wav"]


def test_a_person_is_never_refused_for_its_sake(three: Database) -> None:
    """Whatever happened to it; and is not told either."""
    with three.transaction(force_rollback=True):
        three.execute("drop table draft_queue cascade")
        three.execute("set local role authenticated")
        three.execute("insert into clips (run_id, file_name) values (%s, 'clips/4.wav')", [RUN])
        three.execute("update clips set status = 'discarded', corrected_by = 'me'")
        assert scalar(three, "select count(*) from clips where corrected_by = 'me'") == 4


def without_triggers(db: Database) -> None:
    """As a dump of the rows alone is restored."""
    with db.transaction():
        db.execute("set local session_replication_role = replica")
        db.execute("insert into clips (run_id, file_name) values (%s, 'clips/late.wav')", [RUN])


def a_run_changes(db: Database) -> None:
    run = str(uuid.uuid4())
    db.execute("insert into runs (id, label, type) values (%s, 'psalms', 'reading')", [run])
    db.execute("insert into clips (run_id, file_name) values (%s, 'clips/late.wav')", [run])
    db.execute("update runs set type = 'extraction' where id = %s", [run])


def a_chapter_goes(db: Database) -> None:
    db.execute("insert into clips (run_id, file_name, paragraphs) values (%s, 'chapters/1.wav', '[]')", [RUN])
    db.execute("insert into clips (run_id, file_name) values (%s, 'chunks/late.wav')", [RUN])
    db.execute("delete from clips where file_name = 'chapters/1.wav'")


@pytest.mark.parametrize("late", [without_triggers, a_run_changes, a_chapter_goes])
async def test_what_it_missed_is_found(
    late: Callable[[Database], None], store: ClipStore, version: int, three: Database
) -> None:
    await drafted(store, version)
    late(three)
    assert await store.claim(version, 100, 60) == []
    assert await store.mend_queue() == 1
    assert await store.mend_queue() == 0
    assert [name.rpartition("/")[2] for name in names(await store.claim(version, 100, 60))] == ["late.wav"]


@pytest.mark.parametrize("page", [1, 2, 100])
async def test_what_it_says_wrongly_is_put_right(
    page: int, store: ClipStore, version: int, three: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clips that were changed while it did not hear of it. Failures are as they were, and a time that has come."""
    monkeypatch.setattr(clips, "WALKED_CLIPS", page)
    insert_clips(three, RUN, ["clips/4.wav", "clips/5.wav", "clips/6.wav"])
    claims = sorted(await store.claim(version, 100, 60), key=lambda claim: claim.file_name)
    await store.submit(version, [Drafted(claim, Draft("heard", confidence=-0.2)) for claim in claims[:4]])
    await store.fail([Failed(claim, Retry.LATER, "audio-missing", "no audio") for claim in claims[4:]])
    three.execute("update draft_state set retry_at = now() where clip_id = %s", [claims[5].clip_id])
    before = three.execute(ROWS).fetchall()
    assert await walked(store) == 0
    assert three.execute(ROWS).fetchall() == before
    with three.transaction():
        three.execute("set local session_replication_role = replica")
        three.execute("update clips set draft_transcription = 'stock', updated_at = now() where file_name ~ '1.wav'")
        three.execute("update clips set priority = 5 where file_name ~ '2.wav'")
        three.execute("update clips set updated_at = now() where file_name ~ '3.wav'")
        three.execute("insert into clips (run_id, file_name) values (%s, 'clips/late.wav')", [RUN])
    assert await store.mend_queue() == 1
    assert names(await store.claim(version, 100, 60)) == ["clips/6.wav", "clips/late.wav"]
    await store.release()
    three.execute(
        "update draft_queue q set quiet_seq = 0 from clips c where c.id = q.clip_id and c.file_name ~ '4.wav'"
    )
    assert await walked(store) == 3
    assert await walked(store) == 0
    assert three.execute(ROWS).fetchall()[3] == ("clips/4.wav", 0.0, True, True)
    assert three.execute(ROWS).fetchall()[1] == ("clips/2.wav", 5.0, True, True)
    assert names(await store.claim(version, 100, 60)) == ["clips/1.wav", "clips/6.wav", "clips/late.wav"]


async def walked(store: ClipStore) -> int:
    """What a walk over all clips has put right."""
    total, after = await store.mend_clips("clips", None)
    while after is not None:
        found, after = await store.mend_clips("clips", after)
        total += found
    return total


async def test_what_is_being_changed_is_mended_later(
    store: ClipStore, version: int, three: Database, clean_stack: Any
) -> None:
    """Without waiting for whoever changes it."""
    without_triggers(three)
    with psycopg.connect(clean_stack.db_url) as person:
        person.execute("update clips set priority = 3 where file_name = 'clips/late.wav'")
        assert await store.mend_queue() == 0
        person.rollback()
    assert await store.mend_queue() == 1


@pytest.mark.parametrize("kept", [True, False])
async def test_a_failure_does_not_silence_what_changes_at_this_moment(
    kept: bool, store: ClipStore, version: int, three: Database, clean_stack: Any
) -> None:
    """A person's change is a reason to look again, whether it is committed before or after the failure is noted."""
    claims = await store.claim(version, 100, 60)
    with psycopg.connect(clean_stack.db_url) as person:
        person.execute("update clips set priority = 3 where file_name = 'clips/1.wav'")
        await store.fail([Failed(claim, Retry.NEVER, "audio-empty", "empty") for claim in claims])
        if kept:
            person.commit()
        else:
            person.rollback()
    assert names(await store.claim(version, 100, 60)) == (["clips/1.wav"] if kept else [])


async def test_what_failed_for_good_is_out_of_the_way_until_another_version_is_live(
    store: ClipStore, version: int, three: Database
) -> None:
    claims = await store.claim(version, 100, 60)
    await store.fail([Failed(claim, Retry.NEVER, "audio-empty", "empty") for claim in claims])
    assert [row[3] for row in three.execute(ROWS).fetchall()] == [True] * 3
    assert await store.snapshot() == (version, 0)
    another, _ = await store.register("other", "e" * 64, {}, go_live=True)
    assert await store.snapshot() == (another, 3)
    assert len(await store.claim(another, 100, 60)) == 3
