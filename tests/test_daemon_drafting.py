"""One real daemon, and everybody who writes to `clips` around it: who is drafted, and who is left alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from daemon_process import DaemonProcess, daemon_process
from scripted_editor import Editor, Row
from witness import (
    Database,
    claimed,
    clip_rows,
    deserted,
    drafted_by_machine,
    insert_clips,
    people_kept,
    scalar,
    team,
    until,
    waiting,
    wer,
    write_run,
)

from daemon.local.speech import Utterance, speak_corpus, wav_bytes

RUN = "00000000-0000-4000-8000-000000000001"
OTHER_RUN = "00000000-0000-4000-8000-000000000002"
FILES = 120


@pytest.fixture(scope="module")
def spoken() -> Sequence[Utterance]:
    return speak_corpus("A", 20, seed=501)


@pytest.fixture(scope="module")
def daemon(
    stack: Any, spoken: Sequence[Utterance], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaemonProcess]:
    """Small batches and many claims, so that a turn of drafting lasts."""
    stack.ensure()
    stack.truncate()
    folder = tmp_path_factory.mktemp("daemon")
    write_run(folder / "run", spoken, FILES)
    drafting = {"sweep_seconds": 3, "lease_seconds": 10, "batch_clips": 4}
    audio = {"run_dirs": {RUN: folder / "run", OTHER_RUN: folder / "run"}}
    with daemon_process(stack, folder, drafting=drafting, audio=audio) as running:
        yield running
        assert running.running, running.output


@pytest.fixture
def db(stack: Any, daemon: DaemonProcess) -> Iterator[Database]:
    with deserted(stack.db_url) as connection:
        yield connection


def wavs(spoken: Sequence[Utterance]) -> tuple[list[Row], dict[str, bytes], dict[str, str]]:
    """Rows, audio and texts of an extraction."""
    names = [f"clips/clip_{i:05}.wav" for i in range(len(spoken))]
    rows = [{"file_name": n, "duration_sec": u.seconds} for n, u in zip(names, spoken, strict=True)]
    audio = {n: wav_bytes(u.audio) for n, u in zip(names, spoken, strict=True)}
    return rows, audio, {n: u.text for n, u in zip(names, spoken, strict=True)}


async def test_every_writer_at_work_and_exactly_the_eligible_clips_are_drafted(
    stack: Any, db: Database, spoken: Sequence[Utterance]
) -> None:
    """An extraction is drafted; then everybody does what they do, and no person's row changes in any column."""
    rows, audio, said = wavs(spoken[:12])
    async with team(stack) as editor:
        run = await editor.sync_extraction(rows, audio=audio)
        await until(lambda: len(drafted_by_machine(db)) == 12, "the extraction drafted")
        assert wer(said, clip_rows(db)) < 0.1
        eligible = await everybody_writes(editor, run, spoken)
        before = clip_rows(db)
        again = spoken[15]
        row = {"file_name": "clips/clip_00011.wav", "duration_sec": again.seconds}
        await editor.sync_extraction([row], audio={row["file_name"]: wav_bytes(again.audio)}, run_id=run)
        last = await editor.sync_extraction(rows[:1], audio={rows[0]["file_name"]: audio[rows[0]["file_name"]]})

        (sentinel,) = await editor.clips(last)
        await until(lambda: sentinel["id"] in drafted_by_machine(db), "the last clip drafted")
        await until(lambda: waiting(db) == 0, "nothing waits")
    after = clip_rows(db)
    machine = drafted_by_machine(db)
    synced = next(i for i, r in before.items() if r["run_id"] == run and r["file_name"] == row["file_name"])
    assert wer({row["file_name"]: again.text}, {synced: after[synced]}) == 0
    assert after[synced]["draft_transcription"] != before[synced]["draft_transcription"]
    for clip_id in before.keys() - {synced}:
        assert after[clip_id] == before[clip_id]
    assert set(machine) == eligible | {synced, sentinel["id"]}


async def everybody_writes(editor: Editor, run: str, spoken: Sequence[Utterance]) -> set[str]:
    """Every writer but the extraction. Returns the drafted clips whose draft stays the machine's."""
    clips = await editor.clips(run)
    await editor.save(clips[0], "saved")
    await editor.autosave(clips[1], "typi")
    await editor.autosave(clips[2], "")
    await editor.discard(clips[3])
    await editor.undo(clips[4], await editor.discard(clips[4]))
    await editor.bulk_discard(clips[5:7])
    gone = await editor.sync_extraction([{"file_name": "clips/clip_00000.wav"}], label="to be deleted")
    await editor.delete_run(gone)
    readings = await editor.reading_session(["psalm one", "psalm two", "psalm three"])
    await editor.record(readings[0], wav_bytes(spoken[0].audio))
    await editor.upload(readings[1]["run_id"], readings[1]["file_name"], wav_bytes(spoken[1].audio))
    for text in ("In the beginning", "And God said"):
        chapter = await editor.ingest_chapter(text)
        await editor.upload(chapter["run_id"], chapter["file_name"], wav_bytes(spoken[2].audio))
        pieces = await editor.insert_pieces(chapter, text.split(" ", 1))
        for piece in pieces:
            await editor.upload(piece["run_id"], piece["file_name"], wav_bytes(spoken[3].audio))
        if text == "And God said":
            await editor.mark_split(chapter, pieces)
            await editor.record(pieces[0], wav_bytes(spoken[4].audio))
    merged = await editor.ingest_chapter("And there was light")
    await editor.mark_split(merged, await editor.insert_pieces(merged, ["And there", "was light"]))
    await editor.merge_back(merged)
    return {clip["id"] for clip in clips}


async def test_people_who_come_in_mid_draft_win(stack: Any, db: Database, daemon: DaemonProcess) -> None:
    """The daemon stands still between claim and draft while people write; what they wrote stays to the last column."""
    names = [f"clips/clip_{i:05}.wav" for i in range(60)]
    async with team(stack) as editor:
        daemon.pause()
        try:
            insert_clips(db, OTHER_RUN, names[:20])
            insert_clips(db, RUN, names)
            daemon.go_on()
            await until(lambda: claimed(db) >= 40, "a claim of clips of both runs", pause_s=0.002)
        finally:
            daemon.pause()
        try:
            await until(lambda: not submitting(db), "no draft on its way")
            held = [i for (i,) in db.execute(HELD, [RUN]).fetchall()]
            assert len(held) >= 10
            clips = [next(c for c in await editor.clips(RUN) if c["id"] == clip_id) for clip_id in held[-10:]]
            await editor.save(clips[0], "saved")
            await editor.autosave(clips[1], "typi")
            await editor.autosave(clips[2], "")
            await editor.discard(clips[3])
            await editor.undo(clips[4], await editor.discard(clips[4]))
            await editor.bulk_discard(clips[5:7])
            await editor.record(clips[7], b"RIFF")
            await editor.mark_split(clips[8], [])
            db.execute("update clips set paragraphs = '[]' where id = %s", [clips[9]["id"]])
            await editor.delete_run(OTHER_RUN)
            before = clip_rows(db)
        finally:
            daemon.go_on()
        await until(lambda: waiting(db) == 0, "nothing waits")
    after = clip_rows(db)
    people = {c["id"] for c in clips} - {clips[4]["id"]}
    assert {i: after[i] for i in people} == {i: before[i] for i in people}
    assert set(drafted_by_machine(db)) == after.keys() - people
    assert all(people_kept(before[i], after[i]) for i in after)
    assert scalar(db, "select count(*) from drafts where clip_id = any(%s::uuid[])", list(people)) == 0


HELD = """
select s.clip_id::text from draft_state s join clips c on c.id = s.clip_id
where s.lease_until > now() and c.run_id = %s and c.draft_transcription = 'stock draft' order by s.fence
"""


def submitting(db: Database) -> bool:
    """Whether a statement of the daemon is being carried out."""
    query = "select count(*) from pg_stat_activity where state = 'active' and query ~ 'ambara_(submit|claim)' "
    return bool(scalar(db, query + "and pid <> pg_backend_pid()"))
