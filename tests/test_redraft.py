"""`ambara re-draft` as a process of its own: a person's choice of model and runs, under the daemon's guard."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from daemon_process import ambara, environment, write_config
from scripted_editor import Editor, Row
from witness import Database, Rows, claimed, clip_rows, drafted_by_machine, team, wer

from daemon.local.speech import Utterance, speak_corpus, wav_bytes
from daemon.local.tiny import BASE

STATE = ("model_versions", "drafts", "draft_state", "clips")


@pytest.fixture(scope="module")
def spoken() -> Sequence[Utterance]:
    return speak_corpus("A", 20, seed=507)


@pytest.fixture
def db(clean_stack: Any) -> Iterator[Database]:
    with psycopg.connect(clean_stack.db_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def folder(tmp_path: Path, spoken: Sequence[Utterance]) -> Path:
    """A configuration that names no model, and a run directory that lacks the last of the clips."""
    write_config(tmp_path, model={"base": "openai/whisper-small"})
    (tmp_path / "run" / "clips").mkdir(parents=True)
    for i, utterance in enumerate(spoken[:9]):
        (tmp_path / "run" / "clips" / f"{i}.wav").write_bytes(wav_bytes(utterance.audio))
    return tmp_path


async def two_runs(editor: Editor, spoken: Sequence[Utterance]) -> tuple[str, str]:
    """Ten clips with label `sermon`, of which people have four in hand, and two of another label."""
    last = {"clips/9.wav": wav_bytes(spoken[9].audio)}
    run = await editor.sync_extraction([{"file_name": f"clips/{i}.wav"} for i in range(10)], audio=last)
    clips: dict[str, Row] = {row["file_name"]: row for row in await editor.clips(run)}
    await editor.save(clips["clips/0.wav"], "saved")
    await editor.autosave(clips["clips/1.wav"], "typi")
    await editor.discard(clips["clips/2.wav"])
    await editor.autosave(clips["clips/3.wav"], "")
    other = await editor.sync_extraction([{"file_name": f"clips/{i}.wav"} for i in range(2)], label="other")
    return run, other


def everything(db: Database) -> list[Any]:
    """Every row that a re-draft could change."""
    return [db.execute(f"select to_jsonb(t) from {table} t order by 1".encode()).fetchall() for table in STATE]


def changed(before: Rows, after: Rows) -> set[str]:
    """File names of the rows that differ."""
    assert before.keys() == after.keys()
    return {row["file_name"] for clip_id, row in before.items() if after[clip_id] != row}


async def test_a_dry_run_counts_and_changes_nothing_then_the_label_is_drafted(
    clean_stack: Any, db: Database, folder: Path, spoken: Sequence[Utterance]
) -> None:
    """From the local directory, and from the bucket what is not there; nobody's work and no other run is touched."""
    async with team(clean_stack) as editor:
        run, _ = await two_runs(editor, spoken)
    command = ("re-draft", "-m", str(BASE), "-d", "run", "-l", "sermon")
    before = everything(db)
    dry = ambara(clean_stack, folder, *command, "--dry-run")
    assert (dry.returncode, everything(db)) == (0, before), dry.stderr
    assert "6 clips would be drafted" in " ".join(dry.stdout.split())

    rows = clip_rows(db)
    done = ambara(clean_stack, folder, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 drafts written as version 1" in " ".join(done.stdout.split())
    assert "drafting: 6 of 6" in done.stdout.splitlines()
    after = clip_rows(db)
    assert changed(rows, after) == {f"clips/{i}.wav" for i in range(4, 10)}
    mine = {i: row for i, row in after.items() if row["run_id"] == run}
    assert drafted_by_machine(db).keys() == {i for i, row in mine.items() if row["file_name"] >= "clips/4"}
    assert wer({f"clips/{i}.wav": spoken[i].text for i in range(4, 10)}, mine) < 0.2
    assert db.execute("select kind, stage from model_versions").fetchall() == [("manual", "candidate")]
    card = "select type, status, progress, progress_message from jobs"
    assert db.execute(card.encode()).fetchall() == [("redraft", "done", 100, "6 drafts written as version 1")]
    assert claimed(db) == 0


async def test_a_run_by_its_id_with_clips_that_fail(
    clean_stack: Any, db: Database, folder: Path, spoken: Sequence[Utterance]
) -> None:
    """Two clips have no audio anywhere: the others are drafted, the exit code is 1, and the reason is kept."""
    async with team(clean_stack) as editor:
        _, other = await two_runs(editor, spoken)
        await editor.upload(other, "clips/0.wav", wav_bytes(spoken[0].audio))
        await editor.sync_extraction([{"file_name": "clips/2.wav"}], run_id=other)
    done = ambara(clean_stack, folder, "re-draft", "-m", str(BASE), "--run", other)
    assert done.returncode == 1
    assert "1 drafts written as version 1" in " ".join(done.stdout.split())
    assert "2 failed" in done.stdout
    assert "Traceback" not in done.stderr
    reasons = (
        "select c.file_name, s.reason from draft_state s join clips c on c.id = s.clip_id where reason is not null"
    )
    assert sorted(db.execute(reasons.encode()).fetchall()) == [(f"clips/{i}.wav", "audio-missing") for i in (1, 2)]
    assert {row["run_id"] for i, row in clip_rows(db).items() if i in drafted_by_machine(db)} == {other}
    assert claimed(db) == 0


def refused(clean_stack: Any, folder: Path, *arguments: str) -> str:
    """The one sentence on stderr, with exit code 78."""
    done = ambara(clean_stack, folder, "re-draft", *arguments)
    assert done.returncode == 78, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert environment(clean_stack, folder)["SUPABASE_SERVICE_ROLE_KEY"] not in done.stdout + done.stderr
    return done.stderr


def test_what_it_does_not_understand_is_said_before_anything_is_loaded(clean_stack: Any, folder: Path) -> None:
    assert "No run has the label 'sermno'" in refused(clean_stack, folder, "-m", str(BASE), "-l", "sermno")
    assert "Name the runs" in refused(clean_stack, folder, "-m", str(BASE))
    assert "no directory nowhere" in refused(clean_stack, folder, "-m", str(BASE), "-l", "x", "-d", "nowhere")
    assert "no run with the id" in refused(clean_stack, folder, "-m", str(BASE), "--run", str(uuid.uuid4()))
    assert ambara(clean_stack, folder, "re-draft", "-m", str(BASE), "--run", "not-an-id").returncode == 2


async def test_a_model_that_cannot_be_read(
    clean_stack: Any, db: Database, folder: Path, spoken: Sequence[Utterance]
) -> None:
    async with team(clean_stack) as editor:
        await two_runs(editor, spoken)
    before = everything(db)
    shutil.copytree(BASE, folder / "broken")
    (folder / "broken" / "model.safetensors").write_bytes(b"\0" * 1000)
    assert "broken" in refused(clean_stack, folder, "-m", "broken", "-l", "sermon")
    assert str(folder / "gone") in refused(clean_stack, folder, "-m", str(folder / "gone"), "-l", "sermon")
    assert everything(db) == before
