"""Which rows the database may forget, and that it forgets no other."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from corrections import add_corrected, add_run, decide
from supabase import AsyncClient
from witness import clip_rows, scalar

from daemon.database import Database
from daemon.learning.keeper import Keeper
from daemon.learning.ledger import Ledger
from daemon.learning.registry import Registry
from daemon.learning.sources import Sources
from daemon.sections import ModelSettings, RetentionSettings

Db = psycopg.Connection[Any]


@pytest.fixture
def ledger(supabase_client: AsyncClient) -> Ledger:
    return Ledger(Database(supabase_client), "keeper")


@pytest.fixture
def version(db: Db) -> int:
    return int(scalar(db, "select (ambara_register_model('base', 'f', '{}', true) ->> 'version')::bigint"))


def add_clip(db: Db, status: str = "corrected", words: str | None = "words") -> str:
    """A clip that a person is done with, unless `status` says otherwise."""
    (clip,) = add_corrected(db, add_run(db))
    db.execute("update clips set status = %s, corrected_transcription = %s where id = %s", [status, words, clip])
    return clip


def draft(db: Db, clip: str, version: int, *days_ago: float) -> list[int]:
    """Drafts of a clip, written so many days ago. Returns their numbers."""
    return [
        int(
            scalar(
                db,
                "insert into drafts (clip_id, version_id, text, worker, created_at) "
                "values (%s, %s, 'a draft', 'w', now() - make_interval(secs => %s)) returning id",
                clip,
                version,
                age * 86_400,
            )
        )
        for age in days_ago
    ]


def left(db: Db, clip: str) -> list[int]:
    return [n for (n,) in db.execute("select id from drafts where clip_id = %s order by id", [clip]).fetchall()]


async def forget(ledger: Ledger, days: float, *, page: int = 1000) -> int:
    """Look at all drafts, page by page."""
    total, after = 0, None
    while True:
        gone, after = await ledger.forget_drafts(days, after, page)
        total += gone
        if after is None:
            return total


@pytest.mark.parametrize("status", ["corrected", "discarded"])
@pytest.mark.parametrize(
    ("written", "days", "stay"),
    [
        ((400,), 30, (400,)),  # the last one, however old
        ((400, 300, 200), 30, (300, 200)),  # 300 was in place in the week before 200 was written
        ((400, 300, 200, 100), 30, (200, 100)),
        ((400, 300, 200, 100), 350, (300, 200, 100)),  # too young
        ((400, 300, 200, 100), 500, (400, 300, 200, 100)),
        ((106, 105, 104, 103, 102, 101, 100), 1, (106, 105, 104, 103, 102, 101, 100)),  # all within a week
        ((110, 109, 108, 106, 103, 100), 1, (108, 106, 103, 100)),  # a page opened a week before shows 108
        ((400, 20, 10), 30, (20, 10)),
        ((400, 20, 13.5), 30, (400, 20, 13.5)),  # 400 was replaced 6.5 days before the last: a page may show it
    ],
)
async def test_drafts_of_clips_that_people_are_done_with(
    ledger: Ledger,
    db: Db,
    version: int,
    status: str,
    written: tuple[float, ...],
    days: float,
    stay: tuple[float, ...],
) -> None:
    clip = add_clip(db, status)
    numbers = dict(zip(written, draft(db, clip, version, *written), strict=True))
    before = clip_rows(db)
    assert await forget(ledger, days) == len(written) - len(stay)
    assert left(db, clip) == [numbers[age] for age in stay]
    assert await forget(ledger, days) == 0
    assert clip_rows(db) == before


@pytest.mark.parametrize("words", [None, "somebody types"])
async def test_a_pending_clip_keeps_all_and_any_can_be_restored(
    ledger: Ledger, db: Db, version: int, words: str | None
) -> None:
    clip = add_clip(db, "pending", words)
    numbers = draft(db, clip, version, 900, 800, 700, 1)
    db.execute("insert into draft_state (clip_id, version_id) values (%s, %s)", [clip, version])
    assert await forget(ledger, 1) == 0
    assert left(db, clip) == numbers
    assert await ledger.restore(clip, numbers[0]) == (words is None)


async def test_the_draft_a_person_had_before_them_stays_whatever_their_clock_says(
    ledger: Ledger, db: Db, version: int
) -> None:
    """A page that was opened five days before the last draft; the computer's clock is years off, or tells nothing."""
    for told in ("null", "now() - interval '9 years'", "now() + interval '9 years'"):
        clip = add_clip(db)
        first, shown, late = draft(db, clip, version, 300, 206, 200)
        db.execute(f"update clips set corrected_at = {told} where id = %s".encode(), [clip])
        # At 205 a person opens the page and sees `shown`; at 200 it is drafted again; they save a minute later.
        assert await forget(ledger, 30) == 0
        assert left(db, clip) == [first, shown, late]
        (again,) = draft(db, clip, version, 190)  # their correction was taken back, and another draft came
        await forget(ledger, 30)
        assert left(db, clip) == [late, again]


async def test_any_history_keeps_what_was_in_place_before_the_last_draft(ledger: Ledger, db: Db, version: int) -> None:
    """A hundred histories by chance, looked at in pages of every size: whoever opened a page in the week before the
    last draft finds the draft that it showed."""
    dice = random.Random(5)
    told: dict[str, list[tuple[float, int]]] = {}
    for _ in range(100):
        clip = add_clip(db, dice.choice(["corrected", "discarded", "pending"]))
        ages = sorted((dice.uniform(0, 60) for _ in range(dice.randint(1, 8))), reverse=True)
        told[clip] = list(zip(ages, draft(db, clip, version, *ages), strict=True))
    status = dict(db.execute("select id::text, status from clips").fetchall())
    gone = await forget(ledger, 3, page=dice.choice([1, 2, 7, 50]))
    assert gone > 0
    for clip, history in told.items():
        stay, last = set(left(db, clip)), history[-1][0]
        if status[clip] == "pending":
            assert stay == {number for _, number in history}
        shown = {one for (_, one), (replaced, _) in pairwise(history) if replaced <= last + 7}
        young = {number for age, number in history if age < 3}
        assert stay >= shown | young | {history[-1][1]}
        if status[clip] != "pending":
            assert stay == shown | young | {history[-1][1]}


async def test_a_page_looks_at_so_many_and_no_more(ledger: Ledger, db: Db, version: int) -> None:
    clips = [add_clip(db) for _ in range(5)]
    for clip in clips:
        draft(db, clip, version, 400, 300, 200)
    numbers = [n for (n,) in db.execute("select id from drafts order by id").fetchall()]
    assert await ledger.forget_drafts(30, None, 4) == (2, numbers[3])
    assert await ledger.forget_drafts(30, numbers[3], 100) == (3, None)
    assert await ledger.forget_drafts(30, numbers[-1], 100) == (0, None)
    assert [len(left(db, clip)) for clip in clips] == [2] * 5


async def test_what_somebody_holds_is_passed_by(ledger: Ledger, db: Db, version: int, clean_stack: Any) -> None:
    """Nobody waits: a person who deletes a run holds its drafts, and those come the next time, or never."""
    clip = add_clip(db)
    first, _, _ = numbers = draft(db, clip, version, 400, 300, 200)
    with psycopg.connect(clean_stack.db_url) as somebody:
        somebody.execute("select 1 from drafts where id = %s for update", [first])
        assert await forget(ledger, 30) == 0
        somebody.rollback()
    assert await forget(ledger, 30) == 1
    assert left(db, clip) == numbers[1:]


async def failed_run(ledger: Ledger, *, finish: bool = False) -> int:
    begun = await ledger.begin(bar_clips=1, bar_minutes=0, lease_s=60, settings={})
    assert begun is not None
    if finish:
        await ledger.finish(begun, "trained", f"{begun.id:064}", {})
    else:
        await ledger.fail(begun, "no luck", {})
    return begun.id


async def test_samples_of_failed_runs_go_where_a_later_run_has_them_again(ledger: Ledger, db: Db) -> None:
    """And nothing that is asked of them has another answer."""
    run = add_run(db)
    clips = add_corrected(db, run, 6, recording="tape")
    held = add_corrected(db, run, 2, recording="other")
    decide(db, tape="train", other="held_out")
    first = await failed_run(ledger)
    db.execute("update clips set corrected_transcription = 'other words' where id = %s", [clips[0]])
    db.execute("update clips set status = 'pending' where id = %s", [clips[1]])
    await ledger.ask_training()
    finished = await failed_run(ledger, finish=True)
    add_corrected(db, run, 1, recording="tape")
    third = await failed_run(ledger)

    async def asked() -> tuple[Any, ...]:
        training, candidate = await ledger.observe()
        seen = replace(training, failure=None)  # which says how long ago it was
        return seen, candidate, await ledger.recordings(), await ledger.exportable([run]), clip_rows(db)

    before = await asked()

    def rows(of: int) -> set[str]:
        query = "select clip_id::text from training_samples where run_id = %s"
        return {clip for (clip,) in db.execute(query.encode(), [of]).fetchall()}

    counts = {of: len(rows(of)) for of in (finished, third)}
    assert await ledger.forget_samples(3) == 3
    assert await ledger.forget_samples(100) == 3
    assert await ledger.forget_samples(100) == 0
    assert rows(first) == set(clips[:2])  # in other words since, and in no run since
    assert {of: len(rows(of)) for of in (finished, third)} == counts  # what was trained on stays told; the last stays
    assert len(held) == 2
    assert await asked() == before
    # The words of before, and the clip that comes back, are still no news.
    db.execute("update clips set corrected_transcription = 'words' where id = %s", [clips[0]])
    db.execute("update clips set status = 'corrected' where id = %s", [clips[1]])
    assert (await ledger.observe())[0].new_clips == before[0].new_clips


async def test_a_year_of_failures_takes_no_more_room_than_one(ledger: Ledger, db: Db, tmp_path: Any) -> None:
    """A device that is broken, say; the keeper's turns in between."""
    run = add_run(db)
    add_corrected(db, run, 20, recording="tape")
    decide(db, tape="train", other="held_out")
    keeper = Keeper(ledger, Sources(Registry(tmp_path), ModelSettings()), RetentionSettings(), lambda: None)
    for _ in range(12):
        await ledger.ask_training()
        await failed_run(ledger)
        await keeper.turn()
    assert scalar(db, "select count(*) from training_samples") == 20


@pytest.mark.parametrize(("days", "gone"), [(0, 0), (30, 3)])
async def test_the_keeper_forgets_drafts_only_where_it_was_told_to(
    ledger: Ledger, db: Db, version: int, tmp_path: Any, days: int, gone: int
) -> None:
    for _ in range(3):
        draft(db, add_clip(db), version, 400, 300, 200)
    settings = RetentionSettings(drafts_days=days)
    keeper = Keeper(ledger, Sources(Registry(tmp_path), ModelSettings()), settings, lambda: None)
    await keeper.turn()
    assert scalar(db, "select count(*) from drafts") == 9 - gone
