"""When a run begins, who holds it, and how it ends: on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from corrections import add_corrected, add_run, decide, fingerprint
from supabase import AsyncClient
from witness import scalar

from daemon.database import Database
from daemon.errors import PermanentError
from daemon.learning.ledger import Ledger
from daemon.learning.ports import Side, TrainingRun
from handlers.snapshot import ActiveRun

Sql = psycopg.Connection[Any]


@pytest.fixture
def ledger(supabase_client: AsyncClient) -> Ledger:
    return Ledger(Database(supabase_client), "one")


@pytest.fixture
def other(supabase_client: AsyncClient) -> Ledger:
    return Ledger(Database(supabase_client), "two")


async def begin(ledger: Ledger, clips: int = 10, minutes: float = 0.0, lease_s: float = 60.0) -> TrainingRun | None:
    return await ledger.begin(bar_clips=clips, bar_minutes=minutes, lease_s=lease_s, settings={"epochs": 2})


async def begun(ledger: Ledger, clips: int = 10) -> TrainingRun:
    run = await begin(ledger, clips)
    assert run is not None
    return run


def expire(db: Sql) -> None:
    db.execute("update training_runs set lease_until = now() - interval '1 second' where status = 'active'")


async def test_either_bar_is_enough(ledger: Ledger, db: Sql) -> None:
    decide(db, tape="train")
    add_corrected(db, add_run(db), 4, seconds=30)
    assert await begin(ledger, 5, 0.0) is None
    assert await begin(ledger, 5, 2.1) is None
    assert await begin(ledger, 5, 2.0) is not None


async def test_what_a_run_is_made_of(ledger: Ledger, db: Sql) -> None:
    """Both sides are in the run, the undecided are counted as left out, and the version has its number at once."""
    run = add_run(db)
    decide(db, tape="train", psalm="held_out")
    add_corrected(db, run, 3)
    add_corrected(db, run, 2, recording="psalm")
    add_corrected(db, run, 1, recording="nobody decided")
    add_corrected(db, run, 1, words=" \u00a0\n")
    add_corrected(db, run, 1, seconds=31)
    began = await begun(ledger, 3)
    assert (began.fence, began.attempts) == (1, 1)
    assert began.left_out == {"undecided": 1, "empty-text": 1, "too-long": 1}
    version = await ledger.version(began.version)
    assert version is not None
    assert (version.name, version.kind, version.stage) == (f"trained-{began.version:04}", "trained", "training")
    samples = await ledger.samples(began)
    assert sorted(s.side for s in samples) == [Side.HELD_OUT] * 2 + [Side.TRAIN] * 3
    training, candidate = await ledger.observe()
    assert (training.new_clips, training.trained_clips, training.recordings, training.held_out) == (1, 3, 3, 1)
    assert training.trained_minutes == pytest.approx(0.3)
    assert training.active == ActiveRun(began.id, "one", abandoned=False)
    assert candidate is None


async def test_a_recording_under_another_name_stays_on_its_side(ledger: Ledger, db: Sql) -> None:
    """Whatever side the new name would get: what a model was judged by is never trained on, nor the reverse."""
    run = add_run(db)
    decide(db, tape="train", psalm="held_out")
    add_corrected(db, run, 3)
    add_corrected(db, run, 2, recording="psalm")
    await ledger.finish(await begun(ledger, 3), "trained", fingerprint(), {})
    db.execute("update clips set source_file = source_file || ', side A'")
    await ledger.decide({"tape, side A": Side.HELD_OUT, "psalm, side A": Side.TRAIN})
    assert {r.key: r.side for r in await ledger.recordings()} == {
        "tape, side A": Side.TRAIN,
        "psalm, side A": Side.HELD_OUT,
    }


async def test_a_clip_given_to_a_recording_of_the_other_side_is_left_out(ledger: Ledger, db: Sql) -> None:
    run = add_run(db)
    decide(db, tape="train", psalm="held_out")
    add_corrected(db, run, 3)
    judged_by, stays = add_corrected(db, run, 2, recording="psalm")
    await ledger.finish(await begun(ledger, 3), "trained", fingerprint(), {})
    db.execute("update clips set source_file = 'tape', corrected_transcription = 'hafa' where id = %s", [judged_by])
    added = add_corrected(db, run, 4)
    began = await begun(ledger, 4)
    assert began.left_out == {"changed-sides": 1}
    samples = {sample.clip_id: sample.side for sample in await ledger.samples(began)}
    assert judged_by not in samples
    assert samples[stays] is Side.HELD_OUT
    assert {samples[clip] for clip in added} == {Side.TRAIN}


async def test_held_out_corrections_begin_no_run(ledger: Ledger, db: Sql) -> None:
    decide(db, psalm="held_out")
    add_corrected(db, add_run(db), 50, recording="psalm")
    assert await begin(ledger, 10, 0.1) is None
    await ledger.ask_training()
    assert await begin(ledger, 10, 0.1) is None


async def test_a_person_may_ask_with_nothing_new(ledger: Ledger, db: Sql) -> None:
    decide(db, tape="train")
    add_corrected(db, add_run(db), 1)
    await ledger.finish(await begun(ledger, 1), "trained", fingerprint(), {})
    assert await begin(ledger, 1) is None
    await ledger.ask_training()
    await ledger.ask_training()
    assert (await ledger.observe())[0].asked
    await ledger.finish(await begun(ledger, 100), "trained", fingerprint(), {})
    assert not (await ledger.observe())[0].asked
    assert await begin(ledger, 1) is None


async def test_an_ended_lease_is_taken_over(ledger: Ledger, other: Ledger, db: Sql) -> None:
    """The one who lost it is heard no more, whatever it says."""
    decide(db, tape="train")
    add_corrected(db, add_run(db), 1)
    old = await begun(ledger, 1)
    assert await begin(other, 1) is None
    assert await begin(ledger, 1) is None
    expire(db)
    assert (await ledger.observe())[0].active == ActiveRun(old.id, "one", abandoned=True)
    new = await begun(other, 1)
    assert (new.id, new.version, new.fence, new.attempts) == (old.id, old.version, old.fence + 1, 2)
    assert not await ledger.progress(old, {"step": 9}, 60)
    await ledger.fail(old, "late", {})
    await ledger.let_go(old)
    with pytest.raises(PermanentError, match="no longer this worker's"):
        await ledger.finish(old, "trained", fingerprint(), {})
    assert (await ledger.observe())[0].active == ActiveRun(old.id, "two", abandoned=False)
    assert await other.progress(new, {"step": 1}, 60)


async def test_an_old_fence_of_the_same_worker_is_worth_nothing(ledger: Ledger, db: Sql) -> None:
    """A daemon that was started again under its name, while its old process still has a word to say."""
    decide(db, tape="train")
    add_corrected(db, add_run(db), 1)
    old = await begun(ledger, 1)
    expire(db)
    new = await begun(ledger, 1)
    assert not await ledger.progress(old, {}, 60)
    await ledger.fail(old, "late", {})
    await ledger.let_go(old)
    with pytest.raises(PermanentError, match="no longer this worker's"):
        await ledger.finish(old, "trained", fingerprint(), {})
    assert (await ledger.observe())[0].active == ActiveRun(new.id, "one", abandoned=False)


async def test_another_worker_with_the_right_numbers_is_not_heard(ledger: Ledger, other: Ledger, db: Sql) -> None:
    decide(db, tape="train")
    add_corrected(db, add_run(db), 1)
    run = await begun(ledger, 1)
    assert not await other.progress(run, {}, 60)
    await other.fail(run, "not mine", {})
    assert await ledger.progress(run, {}, 60)


async def test_progress_renews_the_lease(ledger: Ledger, db: Sql) -> None:
    decide(db, tape="train")
    add_corrected(db, add_run(db), 1)
    run = await begun(ledger, 1)
    expire(db)
    assert await ledger.progress(run, {"phase": "training", "step": 1}, 300)
    assert await ledger.progress(run, {"step": 2}, 300)
    assert scalar(db, "select lease_until > now() + interval '4 minutes' from training_runs")
    assert scalar(db, "select detail from training_runs") == {
        "settings": {"epochs": 2}, "phase": "training", "step": 2
    }  # fmt: skip


async def test_letting_go_is_no_loss(ledger: Ledger, other: Ledger, db: Sql) -> None:
    """Ten restarts of the daemon are no reason to give a training up."""
    decide(db, tape="train")
    add_corrected(db, add_run(db), 1)
    for attempt in range(1, 11):
        run = await begun((ledger, other)[attempt % 2], 1)
        assert run.attempts == attempt
        await (ledger, other)[attempt % 2].let_go(run)
        assert not await (ledger, other)[attempt % 2].progress(run, {}, 60)


async def test_after_five_lost_workers_the_run_has_failed(ledger: Ledger, db: Sql) -> None:
    decide(db, tape="train")
    add_corrected(db, add_run(db), 1)
    for attempt in range(1, 6):
        run = await begun(ledger, 1)
        assert run.attempts == attempt
        expire(db)
    assert await begin(ledger, 1) is None
    training, _ = await ledger.observe()
    assert training.active is None
    assert training.failure is not None
    assert training.failure.message.startswith("Five workers")
    version = await ledger.version(run.version)
    assert version is not None
    assert (version.stage, version.reason) == ("rejected", training.failure.message)
    assert await begin(ledger, 1) is None


async def test_failures_in_a_row(ledger: Ledger, db: Sql) -> None:
    run = add_run(db)
    decide(db, tape="train")
    for expected in (1, 2):
        add_corrected(db, run, 1, words=f"words {expected}")
        await ledger.fail(await begun(ledger, 1), "out of memory", {"reason": "out-of-memory"})
        failure = (await ledger.observe())[0].failure
        assert failure is not None
        assert (failure.message, failure.in_a_row) == ("out of memory", expected)
        assert 0 <= failure.minutes_ago < 5
    db.execute("update training_runs set ended_at = now() - interval '90 minutes'")
    failure = (await ledger.observe())[0].failure
    assert failure is not None
    assert failure.minutes_ago == pytest.approx(90, abs=5)
    add_corrected(db, run, 1, words="more")
    await ledger.finish(await begun(ledger, 1), "trained", fingerprint(), {})
    assert (await ledger.observe())[0].failure is None
    add_corrected(db, run, 1, words="yet more")
    await ledger.fail(await begun(ledger, 1), "disk full", {})
    failure = (await ledger.observe())[0].failure
    assert failure is not None
    assert failure.in_a_row == 1


async def test_a_failed_run_is_tried_again_once_by_whoever_comes_first(ledger: Ledger, other: Ledger, db: Sql) -> None:
    decide(db, tape="train")
    add_corrected(db, add_run(db), 1)

    async def retry(who: Ledger, run: int) -> TrainingRun | None:
        return await who.begin(bar_clips=10, bar_minutes=0, lease_s=60, settings={}, retry_of=run)

    assert await retry(ledger, 1) is None
    first = await begun(ledger, 1)
    await ledger.fail(first, "disk full", {})
    again = await asyncio.gather(retry(ledger, first.id), retry(other, first.id))
    (second,) = [run for run in again if run]
    assert second.id != first.id
    who = ledger if again[0] else other
    await who.fail(second, "disk full", {})
    assert await retry(other, first.id) is None
    third = await retry(other, second.id)
    assert third is not None
    await other.finish(third, "trained", fingerprint(), {})
    assert await retry(other, third.id) is None


async def test_finishing_twice_after_a_lost_answer(ledger: Ledger, db: Sql) -> None:
    decide(db, tape="train")
    add_corrected(db, add_run(db), 1)
    run, made = await begun(ledger, 1), fingerprint()
    first = await ledger.finish(run, "trained-x", made, {"wer": 0.3})
    assert (first.stage, first.name, first.fingerprint, first.detail) == ("candidate", "trained-x", made, {"wer": 0.3})
    assert await ledger.finish(run, "trained-x", made, {"wer": 0.3}) == first
    assert not await ledger.progress(run, {}, 60)


async def test_the_same_weights_again_are_turned_down(ledger: Ledger, db: Sql) -> None:
    decide(db, tape="train")
    run, made = add_run(db), fingerprint()
    add_corrected(db, run, 1)
    first = await ledger.finish(await begun(ledger, 1), "a", made, {})
    add_corrected(db, run, 1)
    second = await ledger.finish(await begun(ledger, 1), "b", made, {})
    assert (second.stage, second.reason) == ("rejected", f"the same weights as version {first.id}")
    version = await ledger.version(first.id)
    assert version is not None
    assert version.stage == "candidate"
    with pytest.raises(PermanentError, match=f"no weights of its own: the same weights as version {first.id}"):
        await ledger.promote(second.id, expected=None, reason="by hand")


async def test_an_older_candidate_is_superseded(ledger: Ledger, db: Sql) -> None:
    decide(db, tape="train")
    run = add_run(db)
    add_corrected(db, run, 1)
    first = await ledger.finish(await begun(ledger, 1), "a", fingerprint(), {})
    add_corrected(db, run, 1)
    second = await ledger.finish(await begun(ledger, 1), "b", fingerprint(), {})
    version = await ledger.version(first.id)
    assert version is not None
    assert (version.stage, version.reason) == ("rejected", f"superseded by version {second.id}")
    candidate = (await ledger.observe())[1]
    assert candidate is not None
    assert (candidate.version, candidate.here, candidate.comparison) == (second.id, False, None)


async def test_a_begin_never_waits_in_a_circle_with_a_persons_delete(ledger: Ledger, clean_stack: Any, db: Sql) -> None:
    """The clips that a delete holds are passed by, and count again if the delete does not come true."""
    decide(db, tape="train")
    run = add_run(db)
    clips = add_corrected(db, run, 3)
    with psycopg.connect(clean_stack.db_url) as person:
        person.execute("select from clips where id = %s for update", [clips[0]])
        async with asyncio.timeout(15):
            began = await begun(ledger, 1)
        person.rollback()
    assert {s.clip_id for s in await ledger.samples(began)} == set(clips[1:])
    assert (await ledger.observe())[0].new_clips == 1
