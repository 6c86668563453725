"""What may be learned from, which recording stands where, and what a run gets to see of it."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from corrections import add_corrected, add_run, decide, fingerprint
from postgrest.exceptions import APIError
from scripted_editor import Editor
from supabase import AsyncClient
from witness import scalar

from daemon import migrate
from daemon.database import Database
from daemon.learning.ledger import PAGE, Ledger
from daemon.learning.ports import Side, TrainingRun
from daemon.learning.rows import Recording
from daemon.local.origin import origin_sql

Sql = psycopg.Connection[Any]


@pytest.fixture
def ledger(supabase_client: AsyncClient) -> Ledger:
    return Ledger(Database(supabase_client), "one")


async def begun(ledger: Ledger) -> TrainingRun:
    run = await ledger.begin(bar_clips=1, bar_minutes=0.0, lease_s=60, settings={})
    assert run is not None
    return run


async def new(ledger: Ledger) -> int:
    return (await ledger.observe())[0].new_clips


async def test_every_writer_of_the_editor(editor: Editor, ledger: Ledger, db: Sql) -> None:
    """Only finished words of a person count; each that does not is counted with its reason, or is no correction."""
    run = await editor.sync_extraction([{"file_name": f"clips/{i}.wav", "duration_sec": 6} for i in range(5)])
    clips = {row["file_name"]: row for row in await editor.clips(run)}
    await editor.save(clips["clips/0.wav"], "spoken words")
    await editor.save(clips["clips/1.wav"], " \t ")
    await editor.autosave(clips["clips/2.wav"], "typing")
    await editor.save(clips["clips/3.wav"], "words")
    await editor.discard(clips["clips/3.wav"])
    readings = await editor.reading_session(["psalm one", "psalm two"])
    await editor.record(readings[0], b"RIFF psalm")
    chapter = await editor.ingest_chapter("In the beginning")
    await editor.mark_split(chapter, [])
    db.execute("update clips set status = 'corrected' where id = %s", [chapter["id"]])
    whole = await editor.ingest_chapter("And God said")
    await editor.save(whole, "And God said")

    assert {each.key: each for each in await ledger.recordings()} == {
        "tape.mp3": Recording("tape.mp3", 1, 6.0, None),
        readings[0]["run_id"]: Recording(readings[0]["run_id"], 1, 2.0, None),
    }
    runs = [run, readings[0]["run_id"], chapter["run_id"], whole["run_id"]]
    samples, left_out = await ledger.exportable(runs)
    assert left_out == {"empty-text": 1, "split-record": 1, "chapter": 1}
    assert {(s.recording, s.kind, s.text, s.duration_s, s.label) for s in samples} == {
        ("tape.mp3", "extraction", "spoken words", 6.0, "sermon"),
        (readings[0]["run_id"], "reading", "psalm one", 2.0, "psalms"),
    }
    assert await ledger.exportable([]) == ([], {})


@pytest.mark.parametrize(
    "words", ["", " ", "\t\r\n", "\u00a0", "\u2003\u3000", "\u200b\ufeff", "\x1c", "\u0085", "\u2028"]
)
async def test_white_space_is_no_text(words: str, ledger: Ledger, db: Sql) -> None:
    run = add_run(db)
    add_corrected(db, run, words=words)
    assert await ledger.exportable([run]) == ([], {"empty-text": 1})


@pytest.mark.parametrize("words", ["a", " a ", "{", "{a} _splitOrigin", "ʻ", "。", "你"])
async def test_any_other_is(words: str, ledger: Ledger, db: Sql) -> None:
    run = add_run(db)
    add_corrected(db, run, words=words)
    samples, left_out = await ledger.exportable([run])
    assert ([s.text for s in samples], left_out) == ([words], {})


async def test_a_split_record_is_told_by_what_it_holds(ledger: Ledger, db: Sql) -> None:
    run = add_run(db)
    add_corrected(db, run, words=" " + json.dumps({"childFileNames": [], "_splitOrigin": True}, indent=1))
    assert await ledger.exportable([run]) == ([], {"split-record": 1})


async def test_half_a_minute_is_the_limit(ledger: Ledger, db: Sql) -> None:
    run = add_run(db)
    add_corrected(db, run, seconds=30.0)
    add_corrected(db, run, seconds=30.01)
    samples, left_out = await ledger.exportable([run])
    assert ([s.duration_s for s in samples], left_out) == ([30.0], {"too-long": 1})


async def test_a_recording_is_its_file_or_else_the_run(ledger: Ledger, db: Sql) -> None:
    one, two = add_run(db), add_run(db)
    for recording in (" tape ", None, "  "):
        add_corrected(db, one, recording=recording)
    add_corrected(db, two, recording="tape", seconds=3)
    assert {(r.key, r.clips, r.seconds) for r in await ledger.recordings()} == {("tape", 2, 9.0), (one, 2, 12.0)}


async def test_a_side_once_decided_stays(ledger: Ledger, db: Sql) -> None:
    run = add_run(db)
    for tape in ("a", "b", "c"):
        add_corrected(db, run, recording=tape)
    await ledger.decide({"a": Side.TRAIN, "b": Side.HELD_OUT})
    await ledger.decide({"a": Side.HELD_OUT, "b": Side.TRAIN, "c": Side.TRAIN})
    sides = {r.key: r.side for r in await ledger.recordings()}
    assert sides == {"a": Side.TRAIN, "b": Side.HELD_OUT, "c": Side.TRAIN}


async def test_recording_over_the_same_path_counts_again(editor: Editor, ledger: Ledger, db: Sql) -> None:
    """The words are the same and the row says nothing: only the audio is another. The same audio again is not new."""
    (reading, _) = await editor.reading_session(["psalm one", "psalm two"])
    await editor.record(reading, b"RIFF one")
    await ledger.decide({reading["run_id"]: Side.TRAIN})
    await ledger.fail(await begun(ledger), "no matter how it ends", {})
    assert await new(ledger) == 0
    await editor.record(reading, b"RIFF one")
    assert await new(ledger) == 0
    await editor.record(reading, b"RIFF two")
    assert await new(ledger) == 1


async def test_audio_that_cannot_be_seen_is_no_news(editor: Editor, ledger: Ledger, db: Sql) -> None:
    """A run that is being deleted loses its objects first. Audio that comes late is news: it taught nothing yet."""
    (reading, _) = await editor.reading_session(["psalm one", "psalm two"])
    await editor.record(reading, b"RIFF one")
    await ledger.decide({reading["run_id"]: Side.TRAIN})
    await ledger.fail(await begun(ledger), "no matter how it ends", {})
    path = f"{reading['run_id']}/{reading['file_name']}"
    await editor.scripts.storage.from_("clips").remove([path])
    assert await new(ledger) == 0
    await ledger.ask_training()
    await ledger.fail(await begun(ledger), "no audio", {})
    await editor.upload(reading["run_id"], reading["file_name"], b"RIFF two")
    assert await new(ledger) == 1


async def test_an_edit_raises_and_an_undo_lowers(editor: Editor, ledger: Ledger, db: Sql) -> None:
    run = await editor.sync_extraction([{"file_name": "clips/0.wav"}, {"file_name": "clips/1.wav"}])
    one, two = await editor.clips(run)
    await ledger.decide({"tape.mp3": Side.TRAIN})
    await editor.save(one, "words")
    await editor.save(two, "words")
    assert await new(ledger) == 2
    await editor.undo(two, {"status": "pending", "corrected_transcription": None})
    assert await new(ledger) == 1
    await ledger.fail(await begun(ledger), "no matter how it ends", {})
    assert await new(ledger) == 0
    await editor.autosave(one, "better words")
    assert await new(ledger) == 1
    await editor.autosave(one, "words")
    assert await new(ledger) == 0


async def test_samples_come_in_pages_and_each_once(ledger: Ledger, db: Sql) -> None:
    decide(db, tape="train")
    clips = add_corrected(db, add_run(db), 2 * PAGE)
    samples = await ledger.samples(await begun(ledger))
    assert [s.clip_id for s in samples] == sorted(clips)
    exported, _ = await ledger.exportable([samples[0].run_id])
    assert exported == samples


async def test_a_sample_has_no_text_once_the_clip_is_another(ledger: Ledger, db: Sql) -> None:
    """Edited, undone, discarded, or cut from a recording of the other side; a deleted one is gone."""
    run, gone = add_run(db), add_run(db)
    decide(db, tape="train", psalm="held_out")
    add_corrected(db, gone)
    as_it_was, edited, undone, discarded, moved = add_corrected(db, run, 5)
    began = await begun(ledger)
    db.execute("update clips set corrected_transcription = 'other' where id = %s", [edited])
    db.execute("update clips set status = 'pending', corrected_transcription = null where id = %s", [undone])
    db.execute("update clips set status = 'discarded' where id = %s", [discarded])
    db.execute("update clips set source_file = 'psalm' where id = %s", [moved])
    db.execute("delete from runs where id = %s", [gone])
    texts = {s.clip_id: s.text for s in await ledger.samples(began)}
    assert texts == {as_it_was: "words", edited: None, undone: None, discarded: None, moved: None}
    assert {s.side for s in await ledger.samples(began)} == {Side.TRAIN}


async def test_the_hash_of_what_was_trained_on_is_noted_by_the_holder(ledger: Ledger, db: Sql) -> None:
    decide(db, tape="train")
    (clip,) = add_corrected(db, add_run(db))
    run = await begun(ledger)
    await Ledger(ledger._database, "two").samples_frozen(run, {clip: "0" * 64})
    assert scalar(db, "select audio_sha256 from training_samples") is None
    await ledger.samples_frozen(run, {clip: "a" * 64})
    assert scalar(db, "select audio_sha256 from training_samples") == "a" * 64


async def test_the_editors_card(ledger: Ledger, db: Sql) -> None:
    """One row a run, of the only type that its table knows."""
    card = "select jsonb_build_object('t', type, 's', status, 'p', progress, 'm', progress_message) from jobs"
    run = add_run(db)
    decide(db, tape="train")
    add_corrected(db, run)
    began = await begun(ledger)
    number = began.version
    assert scalar(db, card) == {"t": "redraft", "s": "running", "p": 0, "m": f"Training version {number}"}
    figures = {"phase": "training", "step": 30, "steps": 120, "loss": 1.23456, "wer": 0.345, "seconds_left": 61.0}
    await ledger.progress(began, figures, 60)
    said = f"Training version {number} (training), step 30 of 120, loss 1.235, word error rate 34.5 %, about 2 min left"
    assert scalar(db, card) == {"t": "redraft", "s": "running", "p": 25, "m": said}
    await ledger.finish(began, "trained", fingerprint(), {})
    assert scalar(db, card)["s"] == "done"
    assert scalar(db, card)["p"] == 100
    add_corrected(db, run)
    began = await begun(ledger)
    await ledger.progress(began, figures, 60)
    await ledger.fail(began, "out of memory", {})
    assert scalar(db, f"{card} order by created_at desc limit 1") == {
        "t": "redraft",
        "s": "failed",
        "p": 25,
        "m": f"Training version {began.version} failed: out of memory",
    }
    assert db.execute("select params from jobs order by created_at").fetchall() == [
        ({"ambara_run": began.id - 1},),
        ({"ambara_run": began.id},),
    ]


async def test_figures_that_are_none_spoil_neither_card_nor_training(ledger: Ledger, db: Sql) -> None:
    decide(db, tape="train")
    add_corrected(db, add_run(db))
    began = await begun(ledger)
    assert await ledger.progress(began, {"step": "three", "steps": [1]}, 60)
    assert await ledger.progress(began, {"step": None, "steps": 0, "loss": None}, 60)
    assert scalar(db, "select progress_message from jobs") == f"Training version {began.version}"


@pytest.mark.parametrize(
    "shape",
    ["", "create table jobs (id int)", "create table jobs (type text, status text, params text)", "storage"],
    ids=["no table", "another table", "other columns", "another storage"],
)
def test_a_database_of_another_shape(shape: str, blank_database: str) -> None:
    """No cards, no tags of the audio; the training goes on."""
    with psycopg.connect(blank_database, autocommit=True) as db:
        db.execute(origin_sql(minimal=True).encode())
        if shape == "storage":
            shape = "create schema storage; create table storage.objects (bucket_id text, name int)"
        db.execute(shape.encode())
        migrate.apply(blank_database)
        db.execute("insert into runs (label) values ('r')")
        add_corrected(db, scalar(db, "select id::text from runs"))
        decide(db, tape="train")
        assert scalar(db, "select ambara_training() ->> 'new_clips'") == "1"
        run = scalar(db, "select ambara_begin_training('w', 1, 0, 60, '{}')")
        call = "select ambara_training_progress('w', %s, %s, '{\"step\": 1, \"steps\": 2}', 60)"
        assert scalar(db, call, run["id"], run["fence"]) is True
        assert scalar(db, "select ambara_fail_training('w', %s, %s, 'why', '{}')", run["id"], run["fence"]) is True
        assert scalar(db, "select ambara_training() ->> 'new_clips'") == "0"


async def test_what_status_shows(ledger: Ledger, db: Sql) -> None:
    run = add_run(db)
    decide(db, tape="train")
    add_corrected(db, run, 2, seconds=30)
    found = scalar(db, "select ambara_status()")
    assert found["new_corrections"] == {"clips": 2, "minutes": 1}
    assert (found["training"]["active"], found["training"]["last"], found["candidate"]) == (None, None, None)
    began = await begun(ledger)
    await ledger.progress(began, {"phase": "training", "step": 1}, 60)
    found = scalar(db, "select ambara_status()")
    assert found["new_corrections"] == {"clips": 0, "minutes": 0}
    active = found["training"]["active"]
    assert (active["run"], active["worker"], active["abandoned"]) == (began.id, "one", False)
    assert (active["detail"]["step"], active["clips"], active["minutes"]) == (1, 2, 1)
    version = await ledger.finish(began, "trained", fingerprint(), {})
    found = scalar(db, "select ambara_status()")
    assert (found["training"]["active"], found["training"]["last"]["status"]) == (None, "finished")
    assert (found["candidate"]["version"], found["versions"]) == (version.id, 1)


async def test_the_ledger_is_the_services_alone(editor: Editor, ledger: Ledger, db: Sql) -> None:
    decide(db, tape="train")
    await ledger.ask_training()
    for table in ("training_recordings", "training_requests"):
        try:
            seen = (await editor.person.table(table).select("*").execute()).data
        except APIError:  # refused outright: an API server may grant tables to every role, or not
            seen = []
        assert seen == []
        assert scalar(db, f"select count(*) from {table}") == 1
    for function, arguments in {"ambara_ask_training": {}, "ambara_rollback": {"p_reason": "mine"}}.items():
        with pytest.raises(APIError, match="42501"):
            await editor.person.rpc(function, arguments).execute()
