"""Most useful clips first: priorities that follow from drafts, only where nobody has given one, and given back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import audit
import psycopg
import pytest
from scripted_editor import Editor, Row
from supabase import AsyncClient
from witness import Database, Rows, clip_rows, scalar

from daemon.asr.transcriber import Draft
from daemon.clips import ClipStore
from daemon.ports import Claim, Drafted, Failed, Outcome, Retry

RUN = "00000000-0000-4000-8000-000000000014"
NAMES = [f"clips/{i}.wav" for i in range(4)]
Act = Callable[[Editor, Row], Awaitable[object]]


@pytest.fixture
def store(supabase_client: AsyncClient) -> ClipStore:
    """Of a daemon with ``useful_first``."""
    return ClipStore(supabase_client, "sorts", useful_first=True)


@pytest.fixture
def plain(supabase_client: AsyncClient) -> ClipStore:
    """Of one without it."""
    return ClipStore(supabase_client, "plain")


@pytest.fixture
async def version(store: ClipStore) -> int:
    number, _ = await store.register("base", "f" * 64, {}, go_live=True)
    return number


async def come(editor: Editor, names: Sequence[str]) -> str:
    """Clips that come one after the other, as an extraction sends them. Returns their run."""
    run = ""
    for name in names:
        run = await editor.sync_extraction([{"file_name": name}], run_id=run)
    return run


async def draft(store: ClipStore, version: int, uncertainties: Sequence[float]) -> list[Claim]:
    """Draft so many clips in the queue's order. Returns them."""
    claims = await store.claim(version, len(uncertainties), 60)
    drafts = [Draft("heard", confidence=-0.2, uncertainty=unsure) for unsure in uncertainties]
    outcomes = await store.submit(version, [Drafted(*pair) for pair in zip(claims, drafts, strict=False)])
    assert set(outcomes.values()) <= {Outcome.WRITTEN}
    return claims


def priorities(db: Database) -> dict[str, float]:
    return dict(db.execute("select file_name, priority from clips order by file_name").fetchall())


def without(rows: Rows, names: set[str]) -> Rows:
    return {clip: {name: value for name, value in row.items() if name not in names} for clip, row in rows.items()}


async def give_back(store: ClipStore) -> int:
    looked_at = 0
    while some := await store.give_back_priorities():
        looked_at += some
    return looked_at


async def test_the_least_sure_come_first_in_the_editor_with_one_write_each(
    editor: Editor, store: ClipStore, version: int, db: Database
) -> None:
    """And what a correction would teach nothing about stays where it was."""
    run = await come(editor, NAMES[:4])
    with audit.audited(db):
        audit.allow_priorities(db)
        await draft(store, version, [0.1, 0.0, 0.9, 0.5])
        assert audit.violations(db) == []
        assert audit.counts(db)["drafts"] == 4
    assert [row["priority"] for row in await editor.clips(run)] == [0.9, 0.5, 0.1, 0.0]
    assert [row["file_name"][6] for row in await editor.clips(run)] == ["2", "3", "0", "1"]
    assert await store.snapshot() == (version, 0), "the daemon's own write asks for nothing"


async def test_nothing_of_it_happens_by_default(editor: Editor, plain: ClipStore, version: int, db: Database) -> None:
    await editor.sync_extraction([{"file_name": "clips/0.wav"}])
    with audit.audited(db):
        await draft(plain, version, [0.9])
        assert audit.violations(db) == []
    assert priorities(db) == {"clips/0.wav": 0}
    assert await plain.give_back_priorities() == 0


async def test_the_audit_would_see_it(editor: Editor, store: ClipStore, version: int, db: Database) -> None:
    """A priority that was set unasked, and one that was given back wrong."""
    await come(editor, NAMES[:2])
    with audit.audited(db):
        await draft(store, version, [0.9])
        db.execute("insert into audit.asked values (true)")
        await draft(store, version, [0.8])
        db.execute("update draft_state set former_priority = 7 where given_priority = 0.8")
        await give_back(store)
        told = audit.violations(db)
    seen = ["changed draft_transcription, priority", "took the priority 0.9 for its own", "gave back 7 for 0"]
    assert [sum(words in line for line in told) for words in seen] == [1, 1, 1], told


@pytest.mark.parametrize("theirs", [5.0, -1.0, 0.3])
async def test_a_priority_that_somebody_gave_stays(
    theirs: float, editor: Editor, store: ClipStore, version: int, db: Database
) -> None:
    await editor.sync_extraction([{"file_name": "clips/0.wav", "priority": theirs}])
    await draft(store, version, [0.9])
    assert priorities(db) == {"clips/0.wav": theirs}
    assert await store.give_back_priorities() == 0


async def test_a_better_draft_brings_a_new_one_and_the_first_is_what_is_given_back(
    editor: Editor, store: ClipStore, plain: ClipStore, version: int, db: Database
) -> None:
    """Also where the column may be empty, as some databases have it."""
    db.execute("alter table clips alter column priority drop not null")
    try:
        run = await come(editor, NAMES[:3])
        db.execute("update clips set priority = null where file_name = 'clips/0.wav'")
        await draft(store, version, [0.9, 0.6, 0.3])
        second, _ = await store.register("second", "e" * 64, {}, go_live=True)
        first = await draft(store, second, [0.2])
        assert priorities(db) == {"clips/0.wav": 0.2, "clips/1.wav": 0.6, "clips/2.wav": 0.3}
        await draft(plain, second, [0.9])
        assert priorities(db) == {"clips/0.wav": 0.2, "clips/1.wav": 0, "clips/2.wav": 0.3}
        await editor.sync_extraction([{"file_name": "clips/2.wav", "priority": 0}], run_id=run)
        assert await give_back(plain) == 2
        assert priorities(db) == {"clips/0.wav": None, "clips/1.wav": 0, "clips/2.wav": 0}
        assert first[0].file_name == "clips/0.wav"
    finally:
        db.execute("delete from clips where priority is null")
        db.execute("alter table clips alter column priority set not null")


async def test_new_clips_are_drafted_before_all_that_the_daemon_put_first(
    editor: Editor, store: ClipStore, version: int
) -> None:
    """Then comes what people see first, which is the editor's order as ever."""
    await come(editor, NAMES[:3])
    await draft(store, version, [0.1, 0.0, 0.9])
    await editor.sync_extraction([{"file_name": "clips/new.wav"}])
    second, _ = await store.register("second", "e" * 64, {}, go_live=True)
    order = [claim.file_name for claim in await store.claim(second, 9, 60)]
    assert order == ["clips/new.wav", "clips/2.wav", "clips/0.wav", "clips/1.wav"]


PEOPLE: dict[str, Act] = {
    "saved": lambda e, c: e.save(c, "human"),
    "typing": lambda e, c: e.autosave(c, "hum"),
    "discarded": lambda e, c: e.discard(c),
    "recorded": lambda e, c: e.record(c, b"RIFF"),
}


async def test_all_get_back_what_they_had_but_those_that_somebody_changed(
    editor: Editor, store: ClipStore, plain: ClipStore, version: int, db: Database
) -> None:
    """Whatever people have made of them; and no other column differs."""
    names = [*PEOPLE, "left", "prioritised"]
    run = await come(editor, names)
    await draft(store, version, [0.9] * len(names))
    clips = {row["file_name"]: row for row in await editor.clips(run)}
    for name, act in PEOPLE.items():
        await act(editor, clips[name])
    await editor._update(clips["prioritised"]["id"], {"priority": 4})
    before = clip_rows(db)
    with audit.audited(db):
        audit.allow_priorities(db)
        assert await give_back(plain) == len(names)
        assert audit.violations(db) == []
    assert priorities(db) == {**dict.fromkeys(names, 0), "prioritised": 4}
    assert without(clip_rows(db), {"priority", "updated_at"}) == without(before, {"priority", "updated_at"})
    assert clip_rows(db)[clips["prioritised"]["id"]] == before[clips["prioritised"]["id"]]
    assert scalar(db, "select count(*) from draft_state where given_priority is not null") == 0


async def test_to_give_back_is_no_reason_to_draft_and_stands_in_no_way(
    editor: Editor, store: ClipStore, plain: ClipStore, version: int, db: Database, clean_stack: Any
) -> None:
    """One clip is done, one failed for good, one is being drafted, one is held by somebody who is changing it."""
    await come(editor, NAMES[:4])
    await draft(store, version, [0.9, 0.8, 0.7, 0.6])
    second, _ = await store.register("second", "e" * 64, {}, go_live=True)
    done, failing, working, held = await store.claim(second, 4, 60)
    for claim in (done, held):
        await store.submit(second, [Drafted(claim, Draft("again", -0.2, uncertainty=0.5))])
    await store.fail([Failed(failing, Retry.NEVER, "audio-empty", "empty")])
    with psycopg.connect(clean_stack.db_url) as person:
        person.execute("update clips set priority = priority where id = %s", [held.clip_id])
        assert await give_back(plain) == 3
        person.rollback()
    assert priorities(db) == {"clips/0.wav": 0, "clips/1.wav": 0, "clips/2.wav": 0, "clips/3.wav": 0.5}
    assert await plain.snapshot() == (second, 0)
    assert await plain.claim(second, 9, 60) == []
    written = await store.submit(second, [Drafted(working, Draft("at last", -0.2))])
    assert written == {working.clip_id: Outcome.WRITTEN}
    assert await give_back(plain) == 1
    assert set(priorities(db).values()) == {0}
