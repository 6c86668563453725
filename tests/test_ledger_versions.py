"""Which version is live, who may change that, and the log of drafts."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest
from corrections import add_corrected, add_run, fingerprint
from scripted_editor import Editor
from supabase import AsyncClient
from witness import clip_rows, scalar

from daemon.asr.transcriber import Draft
from daemon.clips import ClipStore
from daemon.database import Database
from daemon.errors import PermanentError
from daemon.learning.ledger import Ledger
from daemon.ports import Drafted, Outcome
from handlers.snapshot import Comparison, Guard

Sql = psycopg.Connection[Any]
COMPARISON = Comparison(
    against=1, clips=40, recordings=3, words=412, live_wer=0.41, candidate_wer=0.3, gain_low=0.02, gain_high=0.2,
    confidence=0.95, guards=(Guard("word error rate of the worst recording", 0.6, 0.5, 0.05), Guard("loops", 0, 0, 0)),
)  # fmt: skip


@pytest.fixture
def ledger(supabase_client: AsyncClient) -> Ledger:
    return Ledger(Database(supabase_client), "person")


@pytest.fixture
def store(supabase_client: AsyncClient) -> ClipStore:
    return ClipStore(supabase_client, "daemon")


@pytest.fixture
async def base(store: ClipStore) -> int:
    """A live base."""
    return (await store.register("base", "b" * 64, {}, go_live=True))[0]


async def trained(ledger: Ledger, db: Sql) -> int:
    """A new candidate."""
    run = add_run(db)
    db.execute("insert into training_recordings values ('tape', 'train') on conflict do nothing")
    add_corrected(db, run)
    begun = await ledger.begin(bar_clips=1, bar_minutes=0, lease_s=60, settings={})
    assert begun is not None
    return (await ledger.finish(begun, "trained", fingerprint(), {"model": "models/0002"})).id


async def stages(ledger: Ledger) -> dict[int, str]:
    return {version.id: version.stage for version in await ledger.versions()}


async def live_number(ledger: Ledger) -> int | None:
    live = await ledger.live()
    return live.id if live else None


async def test_a_comparison_comes_back_as_it_was(ledger: Ledger, base: int, db: Sql) -> None:
    number = await trained(ledger, db)
    await ledger.evaluated(number, COMPARISON)
    candidate = (await ledger.observe())[1]
    assert candidate is not None
    assert candidate.comparison == COMPARISON
    version = await ledger.version(number)
    assert version is not None
    assert version.detail["model"] == "models/0002"


async def test_a_candidate_goes_live(ledger: Ledger, store: ClipStore, base: int, db: Sql) -> None:
    number, before = await trained(ledger, db), await ledger.live()
    assert await ledger.promote(number, expected=base, reason="6 % better")
    live = await ledger.live()
    assert live is not None
    assert before is not None
    assert (live.id, live.stage, live.reason) == (number, "live", "6 % better")
    assert (live.live_seq or 0) > (before.live_seq or 0)
    assert live.live_at is not None
    assert await stages(ledger) == {base: "retired", number: "live"}
    assert (await ledger.observe())[1] is None
    assert (await store.snapshot())[0] == number
    # A second time after a lost answer: no other number, so nothing is drafted again.
    assert await ledger.promote(number, expected=base, reason="6 % better")
    assert await ledger.promote(number, expected=None, reason="by hand")
    assert await ledger.live() == live


async def test_what_was_judged_against_another_does_not_go_live(ledger: Ledger, base: int, db: Sql) -> None:
    first = await trained(ledger, db)
    assert await ledger.promote(first, expected=base, reason="better")
    second = await trained(ledger, db)
    assert not await ledger.promote(second, expected=base, reason="judged against the base")
    assert await stages(ledger) == {base: "retired", first: "live", second: "candidate"}
    await ledger.reject(second, "no better")
    assert not await ledger.promote(second, expected=first, reason="turned down meanwhile")
    await ledger.reject(first, "is live")
    assert await stages(ledger) == {base: "retired", first: "live", second: "rejected"}


async def test_a_person_promotes_anything_that_has_weights(ledger: Ledger, base: int, db: Sql) -> None:
    number = await trained(ledger, db)
    await ledger.reject(number, "no better")
    assert await ledger.promote(number, expected=None, reason="I want it")
    assert await ledger.promote(base, expected=None, reason="and back")
    assert await stages(ledger) == {base: "live", number: "retired"}
    with pytest.raises(PermanentError, match="There is no version 99"):
        await ledger.promote(99, expected=None, reason="no such")
    add_corrected(db, add_run(db))
    run = await ledger.begin(bar_clips=1, bar_minutes=0, lease_s=60, settings={})
    assert run is not None
    with pytest.raises(PermanentError, match="still being trained"):
        await ledger.promote(run.version, expected=None, reason="now")
    await ledger.reject(run.version, "now")
    assert (await stages(ledger))[run.version] == "training"
    await ledger.fail(run, "out of memory", {})
    with pytest.raises(PermanentError, match="no weights of its own: out of memory"):
        await ledger.promote(run.version, expected=None, reason="now")
    assert await live_number(ledger) == base


async def test_rolling_back_goes_to_what_was_live_before(ledger: Ledger, base: int, db: Sql) -> None:
    assert await ledger.rollback("nothing before") is None
    assert await live_number(ledger) == base
    first, second = await trained(ledger, db), 0
    assert await ledger.promote(first, expected=base, reason="better")
    second = await trained(ledger, db)
    assert await ledger.promote(second, expected=first, reason="better still")
    back = await ledger.rollback("it loops")
    assert back is not None
    assert (back.id, back.stage) == (first, "live")
    assert back.live_seq == scalar(db, "select max(live_seq) from model_versions")
    assert await stages(ledger) == {base: "retired", first: "live", second: "rejected"}
    turned_down = await ledger.version(second)
    assert turned_down is not None
    assert turned_down.reason == "it loops"
    again = await ledger.rollback("this one too")
    assert again is not None
    assert again.id == base
    assert await ledger.rollback("nothing before") is None


async def test_a_restart_does_not_undo_what_a_person_chose(ledger: Ledger, store: ClipStore, base: int) -> None:
    """The daemon registers the base of its settings each time it starts."""
    other, live = await store.register("other", "c" * 64, {}, go_live=True)
    assert live is not None
    assert live.id == other
    assert await ledger.promote(base, expected=None, reason="by hand")
    _, live = await store.register("other", "c" * 64, {}, go_live=True)
    assert live is not None
    assert live.id == base
    # A base that never was live here is a newer wish than the choice.
    newest, live = await store.register("newest", "d" * 64, {}, go_live=True)
    assert live is not None
    assert live.id == newest
    await ledger.rollback("not good")
    _, live = await store.register("newest", "d" * 64, {}, go_live=True)
    assert live is not None
    assert live.id == base


async def test_a_base_that_was_turned_down_stays_down(ledger: Ledger, store: ClipStore, base: int) -> None:
    other, _ = await store.register("other", "c" * 64, {}, go_live=True)
    await ledger.reject(base, "it loops")
    _, live = await store.register("base", "b" * 64, {}, go_live=True)
    assert live is not None
    assert live.id == other


async def test_registering_again_uses_up_no_numbers(store: ClipStore, base: int) -> None:
    for _ in range(5):
        assert (await store.register("base", "b" * 64, {}, go_live=True))[0] == base
    assert (await store.register("other", "c" * 64, {}, go_live=False))[0] == base + 1


async def test_pins(ledger: Ledger, base: int) -> None:
    await ledger.pin(base, True)
    assert [version.pinned for version in await ledger.versions()] == [True]
    await ledger.pin(base, False)
    assert [version.pinned for version in await ledger.versions()] == [False]
    with pytest.raises(PermanentError, match="There is no version 99"):
        await ledger.pin(99, True)
    assert await ledger.version(99) is None


async def drafts_of_two_versions(editor: Editor, store: ClipStore, base: int) -> tuple[str, int]:
    """A clip that the base and then another version drafted. Returns its id and the live version."""
    await editor.sync_extraction([{"file_name": "clips/0.wav"}])
    other = base
    for text in ("first", "second"):
        (claim,) = await store.claim(other, 10, 60)
        await store.submit(other, [Drafted(claim, Draft(text, confidence=-0.25, flags=("loop",)))])
        if text == "first":
            other, _ = await store.register("other", "c" * 64, {}, go_live=True)
    return claim.clip_id, other


async def test_an_older_draft_comes_back_and_stays(
    editor: Editor, ledger: Ledger, store: ClipStore, base: int, db: Sql
) -> None:
    clip, live = await drafts_of_two_versions(editor, store, base)
    second, first = await ledger.drafts(clip)
    assert (first.version, first.text, first.confidence, first.flags) == (base, "first", -0.25, ("loop",))
    assert (second.version, second.text) == (live, "second")
    assert [version.drafts for version in await ledger.versions()] == [1, 1]
    before = clip_rows(db)[clip]
    assert await ledger.restore(clip, first.id)
    after = clip_rows(db)[clip]
    changed = {name for name in after if after[name] != before[name]}
    assert (after["draft_transcription"], changed) == ("first", {"draft_transcription", "updated_at"})
    assert [(d.version, d.text) for d in await ledger.drafts(clip)] == [
        (base, "first"), (live, "second"), (base, "first")
    ]  # fmt: skip
    assert await store.claim(live, 10, 60) == []
    assert await store.snapshot() == (live, 0)
    newest, _ = await store.register("newest", "d" * 64, {}, go_live=True)
    assert len(await store.claim(newest, 10, 60)) == 1


async def test_a_restore_takes_the_claim_away(
    editor: Editor, ledger: Ledger, store: ClipStore, base: int, db: Sql
) -> None:
    clip, _ = await drafts_of_two_versions(editor, store, base)
    newest, _ = await store.register("newest", "d" * 64, {}, go_live=True)
    (claim,) = await store.claim(newest, 10, 60)
    oldest = (await ledger.drafts(clip))[-1]
    assert await ledger.restore(clip, oldest.id)
    assert db.execute("select worker, lease_until, fence > %s from draft_state", [claim.fence]).fetchall() == [
        (None, None, True)
    ]
    assert await store.submit(newest, [Drafted(claim, Draft("third", confidence=None))]) == {clip: Outcome.DROPPED}
    assert await store.claim(newest, 10, 60) == []


async def test_a_restore_never_touches_what_a_person_wrote(
    editor: Editor, ledger: Ledger, store: ClipStore, base: int, clean_stack: Any, db: Sql
) -> None:
    clip, _ = await drafts_of_two_versions(editor, store, base)
    oldest = (await ledger.drafts(clip))[-1]
    (row,) = await editor.clips()
    with psycopg.connect(clean_stack.db_url) as holder:
        holder.execute("update clips set priority = priority")
        assert not await ledger.restore(clip, oldest.id)
        holder.rollback()
    await editor.autosave(row, "typ")
    before = clip_rows(db)
    assert not await ledger.restore(clip, oldest.id)
    await editor.save(row, "typed")
    assert not await ledger.restore(clip, oldest.id)
    assert not await ledger.restore(clip, 999)
    assert not await ledger.restore(str(uuid.uuid4()), oldest.id)
    assert clip_rows(db)[clip]["draft_transcription"] == before[clip]["draft_transcription"] == "second"
    assert len(await ledger.drafts(clip)) == 2


async def test_a_draft_of_another_clip_is_not_given(
    editor: Editor, ledger: Ledger, store: ClipStore, base: int
) -> None:
    clip, live = await drafts_of_two_versions(editor, store, base)
    await editor.sync_extraction([{"file_name": "clips/1.wav"}])
    (claim,) = await store.claim(live, 10, 60)
    await store.submit(live, [Drafted(claim, Draft("of another", confidence=None))])
    theirs = (await ledger.drafts(claim.clip_id))[0]
    assert not await ledger.restore(clip, theirs.id)
