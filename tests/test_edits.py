"""What people changed in the drafts, measured: scripted editors, real drafts under the guard, real PostgreSQL."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import psycopg
import pytest
from corrections import add_corrected, add_run, fingerprint
from scripted_editor import Editor
from supabase import AsyncClient, acreate_client
from witness import clip_rows, scalar

from daemon.asr.metrics import edits
from daemon.asr.transcriber import Draft
from daemon.clips import ClipStore
from daemon.database import Database
from daemon.learning import edits as book
from daemon.learning.ledger import Ledger
from daemon.ports import Drafted
from handlers.edits import change

Sql = psycopg.Connection[Any]


@pytest.fixture
def ledger(supabase_client: AsyncClient) -> Ledger:
    return Ledger(Database(supabase_client), "person")


@pytest.fixture
def store(supabase_client: AsyncClient) -> ClipStore:
    return ClipStore(supabase_client, "daemon")


@pytest.fixture
async def editor(clean_stack: Any, supabase_client: AsyncClient) -> AsyncIterator[Editor]:
    person = await acreate_client(clean_stack.url, clean_stack.anon_key)
    person.postgrest.auth(clean_stack.mint("authenticated", sub=str(uuid.uuid4())))
    yield Editor(person, supabase_client)
    await person.realtime.close()


@pytest.fixture
async def base(store: ClipStore) -> int:
    return (await store.register("base", "b" * 64, {}, go_live=True))[0]


async def draft(store: ClipStore, version: int, text: str) -> None:
    """All that is waiting, under the guard, as a daemon does."""
    claims = await store.claim(version, 1000, 60)
    assert claims
    await store.submit(version, [Drafted(claim, Draft(text, confidence=-0.25)) for claim in claims])


async def another(store: ClipStore) -> int:
    """A version that is live in place of the one that was."""
    return (await store.register("other", fingerprint(), {}, go_live=True))[0]


def measured(db: Sql) -> dict[str, tuple[int, int, int]]:
    """File name -> version, words of the correction, words changed."""
    found = db.execute(
        "select c.file_name, e.version_id, e.words, e.word_edits from draft_edits e join clips c on c.id = e.clip_id"
    ).fetchall()
    return {name.removesuffix(".wav"): (version, words, changed) for name, version, words, changed in found}


async def rows(editor: Editor) -> Mapping[str, dict[str, Any]]:
    return {row["file_name"].removesuffix(".wav"): row for row in await editor.clips()}


@pytest.mark.parametrize(
    ("text", "before", "found"),
    [
        ("salama tompoko", "salama tompoko", (2, 0, 14, 0)),
        ("Salama, tompoko!", "salama tompoko", (2, 2, 16, 3)),  # capitals and commas are typed
        ("salama  tompoko\n", "salama tompoko", (2, 0, 14, 0)),
        ("e\u0301", "\u00e9", (1, 0, 1, 0)),
        ("salama", "", (1, 1, 6, 6)),
        ("iray roa telo", "roa telo efatra", (3, 2, 13, 12)),
    ],
)
def test_edits(text: str, before: str, found: tuple[int, int, int, int]) -> None:
    counted = edits(text, before)
    assert (counted.words, counted.word_edits, counted.characters, counted.character_edits) == found


async def test_each_correction_counts_for_the_version_whose_draft_was_there(
    editor: Editor, ledger: Ledger, store: ClipStore, base: int, db: Sql
) -> None:
    names = ("first", "later", "stale", "theirs", "chapter", "undone", "at-work", "waiting")
    await editor.sync_extraction([{"file_name": f"{name}.wav"} for name in names])
    await draft(store, base, "iray roa telo efatra")
    clip = await rows(editor)
    await editor.save(clip["first"], "iray roa dimy efatra")
    await editor.autosave(clip["at-work"], "iray")
    newer = await another(store)
    await draft(store, newer, "iray roa telo enina")
    await editor.save(clip["later"], "iray roa telo enina")
    await editor.save(clip["stale"], "iray roa telo efatra")  # a page that was opened before the newer draft
    db.execute("update clips set draft_transcription = 'somebody else' where file_name = 'theirs.wav'")
    await editor.save(clip["theirs"], "iray")
    await editor.save(clip["chapter"], '{"_splitOrigin": true}')
    before = await editor.discard(clip["undone"])
    await editor.undo(clip["undone"], before)
    await editor.reading_session(["vakio ity"])
    add_corrected(db, add_run(db))  # nobody's draft

    untouched = clip_rows(db)
    assert await ledger.edits.measure() == 3
    assert measured(db) == {"first": (base, 4, 1), "later": (newer, 4, 0), "stale": (base, 4, 0)}
    assert clip_rows(db) == untouched
    assert await ledger.edits.measure() == 0

    # What is changed later is measured anew, against the same draft.
    await editor.save(clip["first"], "iray roa dimy enina fito")
    await editor.save(clip["at-work"], "iray roa")
    assert await ledger.edits.measure() == 2
    assert measured(db) == {
        "first": (base, 5, 3), "later": (newer, 4, 0), "stale": (base, 4, 0), "at-work": (base, 2, 2)
    }  # fmt: skip
    rates = {row["version"]: row for row in await ledger.edits.rates()}
    monday = scalar(db, "select date_trunc('week', now() at time zone 'UTC')::date::text")
    assert {row["week"] for row in rates.values()} == {monday}
    figures = ("clips", "unchanged", "words", "word_edits")
    assert [rates[base][key] for key in figures] == [3, 1, 11, 5]
    assert [rates[newer][key] for key in figures] == [1, 1, 4, 0]


async def test_a_clock_that_is_wrong_moves_no_correction_into_another_year(
    editor: Editor, ledger: Ledger, store: ClipStore, base: int, db: Sql
) -> None:
    await editor.sync_extraction([{"file_name": f"{name}.wav"} for name in ("past", "future", "none")])
    await draft(store, base, "iray")
    for clip in (await rows(editor)).values():
        await editor.save(clip, "roa")
    db.execute("update clips set corrected_at = '1970-01-01' where file_name = 'past.wav'")
    db.execute("update clips set corrected_at = '2099-01-01' where file_name = 'future.wav'")
    db.execute("update clips set corrected_at = null where file_name = 'none.wav'")
    assert await ledger.edits.measure() == 3
    assert scalar(db, "select count(*) from draft_edits where now() - corrected_at between '0 s' and '1 h'") == 3


async def test_several_daemons_and_pages_come_to_the_same(
    editor: Editor, ledger: Ledger, store: ClipStore, base: int, db: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "PAGE", 3)
    await editor.sync_extraction([{"file_name": f"{number:02}.wav"} for number in range(11)])
    await draft(store, base, "iray roa")
    for clip in (await rows(editor)).values():
        await editor.save(clip, "iray telo")
    found = await asyncio.gather(*(ledger.edits.measure() for _ in range(4)))
    found.append(await ledger.edits.measure())  # what another held at that moment
    assert sum(found) >= 11
    assert sorted(measured(db).values()) == [(base, 2, 1)] * 11


async def test_what_changed_since_it_was_read_is_not_noted(
    editor: Editor, ledger: Ledger, store: ClipStore, base: int, db: Sql
) -> None:
    await editor.sync_extraction([{"file_name": "one.wav"}])
    await draft(store, base, "iray roa")
    clip = (await rows(editor))["one"]
    await editor.save(clip, "iray telo")
    (row,) = scalar(db, "select ambara_unmeasured(null, 10)")
    await editor.save(clip, "iray roa")
    noted = {**row, "words": 2, "characters": 9, "word_edits": 1, "character_edits": 3}
    database = Database(editor.scripts)
    assert await database.call("ambara_measured", {"p_rows": [noted]}, int) == 0
    assert await ledger.edits.measure() == 1
    assert measured(db) == {"one": (base, 2, 0)}


async def trained(ledger: Ledger, db: Sql, live: int) -> int:
    """A version that was promoted for being better."""
    db.execute("insert into training_recordings values ('tape', 'train') on conflict do nothing")
    add_corrected(db, add_run(db))
    begun = await ledger.begin(bar_clips=1, bar_minutes=0, lease_s=60, settings={})
    assert begun is not None
    number = (await ledger.finish(begun, "trained", fingerprint(), {})).id
    assert await ledger.promote(number, expected=live, reason="better")
    return number


async def test_worse_drafts_lead_back_once(
    editor: Editor, ledger: Ledger, store: ClipStore, base: int, db: Sql
) -> None:
    first = await trained(ledger, db, base)
    live = await trained(ledger, db, first)

    async def corrected(version: int, text: str, name: str) -> None:
        clips = [{"file_name": f"{name}-{n}.wav", "source_file": f"{name}-{n % 6}"} for n in range(36)]
        run = await editor.sync_extraction(clips)
        await draft(store, version, text)
        for at, clip in enumerate(await editor.clips(run)):
            await editor.save(clip, "iray roa telo efatra" if at % 3 else "iray roa telo dimy")

    await corrected(live, "tsy misy marina eto", "bad")
    assert await ledger.edits.measure() == 36
    compared = await ledger.edits.compared()
    assert compared is not None
    rates, kind = compared
    assert (rates.version, rates.before, rates.chosen, kind) == (live, first, False, "trained")
    assert rates.then is None
    assert change(rates) is None

    # The version before, as if its drafts had been corrected in its time.
    await corrected(live, "iray roa telo efatra", "good")
    db.execute("update drafts set version_id = %s where text = 'iray roa telo efatra'", [first])
    assert await ledger.edits.measure() == 36
    compared = await ledger.edits.compared()
    assert compared is not None
    found = change(compared[0])
    assert found is not None
    assert found.worse
    plain = "select sum(word_edits)::float / sum(words) from draft_edits where version_id = %s"
    assert (found.now, found.then) == pytest.approx((scalar(db, plain, live), scalar(db, plain, first)))

    assert await ledger.rollback_from(first, "not live") is None
    back = await ledger.rollback_from(live, "worse")
    assert back is not None
    assert back.id == first
    assert scalar(db, "select stage from model_versions where id = %s", live) == "rejected"
    compared = await ledger.edits.compared()
    assert compared is not None
    assert (compared[0].version, compared[0].before, compared[0].chosen) == (first, base, True)
    assert await ledger.rollback_from(first, "again") is None, "once"


async def test_nothing_was_live_before_the_first(ledger: Ledger, base: int) -> None:
    assert base
    assert await ledger.edits.compared() is None
    assert await ledger.rollback_from(base, "a base") is None
