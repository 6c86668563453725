"""`ambara export` as a process of its own, against rows that all kinds of writers left behind."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import soundfile
from daemon_process import ambara, environment, write_config
from scripted_editor import Editor
from witness import Database, team

from daemon.learning.audiofolder import held_out, load_manifest
from daemon.local.speech import noise, wav_bytes
from handlers.holdout import assign

GUARD_S = 60.0
HELD = "tape7.mp3"
TRAINED = "tape0.mp3"
"""By their hashes, at a share of 0.15."""


@pytest.fixture
def db(clean_stack: Any) -> Iterator[Database]:
    with psycopg.connect(clean_stack.db_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_config(tmp_path)
    return tmp_path


def sound(seed: int, seconds: float = 0.5) -> bytes:
    return wav_bytes(noise(seconds, seed=seed))


def rows(folder: Path) -> dict[str, str]:
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return {row["file_name"]: row["transcription"] for row in csv.DictReader(file)}


def everything(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if "state" not in path.parts)


def sides(db: Database) -> dict[str, str]:
    return dict(db.execute("select recording, side from training_recordings").fetchall())


async def corrected(
    editor: Editor, recording: str, texts: list[str], *, seed: int, label: str = "sermon", **audio: bytes
) -> tuple[str, list[str]]:
    """A run of one recording whose clips are all saved with `texts`. `audio`: what lies there instead, by stem."""
    names = [f"clips/clip_{i:05}.wav" for i in range(len(texts))]
    sounds = {name: sound(seed + i) for i, name in enumerate(names)}
    sounds |= {f"clips/{stem}.wav": content for stem, content in audio.items()}
    run = await editor.sync_extraction(
        [{"file_name": name, "source_file": recording} for name in names],
        label=label,
        audio={name: content for name, content in sounds.items() if content},
    )
    ids = {row["file_name"]: row for row in await editor.clips(run)}
    for name, text in zip(names, texts, strict=True):
        await editor.save(ids[name], text)
    return run, [ids[name]["id"] for name in names]


def test_the_recordings_of_this_file_are_on_the_sides_that_it_says() -> None:
    assert assign({}, [HELD, TRAINED], 0.15) == {HELD: True, TRAINED: False}


async def test_two_runs_with_one_label_and_one_name_for_their_clips(
    clean_stack: Any, db: Database, folder: Path
) -> None:
    """Good clips of all kinds are written under their ids; each bad one is counted; sides are kept by the database."""
    async with team(clean_stack) as editor:
        first, trained = await corrected(
            editor,
            TRAINED,
            ["voalohany", '  faharoa,\n"hoy izy" ', "fahatelo", "fahefatra", "fahadimy", "   "],
            seed=100,
            clip_00002=b"",  # its audio was never uploaded
            clip_00003=b"RIFF" + bytes(500),
            clip_00004=sound(1, seconds=31.0),
        )
        second, held = await corrected(editor, HELD, ["an-tsena", "an-tranony"], seed=200)
        other, _ = await corrected(editor, TRAINED, ["tsy eto"], seed=300, label="other")
        read = (await editor.reading_session(["vakiana mafy", "tsy mbola voavaky"]))[0]
        await editor.record(read, sound(400))
        chapter = await editor.ingest_chapter("toko iray", run_id=first)
        await editor.mark_split(chapter, await editor.insert_pieces(chapter, ["tapany", "tapany hafa"]))
        psalms = read["run_id"]
    # A recording that is named by a run's random id would fall on either side.
    db.execute("insert into training_recordings (recording, side) values (%s, 'train')", [psalms])

    done = ambara(clean_stack, folder, "export", "-l", "sermon", "--run", psalms, "-o", "data", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)
    data = folder / "data"
    train = {
        f"clips/{trained[0]}.wav": "voalohany",
        f"clips/{trained[1]}.wav": 'faharoa,\n"hoy izy"',
        f"clips/{read['id']}.wav": "vakiana mafy",
    }
    assert rows(data / "train") == train
    assert rows(data / "test") == {
        f"clips/{clip}.wav": text for clip, text in zip(held, ["an-tsena", "an-tranony"], strict=True)
    }
    assert counts["train"] == {"clips": 3, "seconds": 1.5, "recordings": 2}
    assert counts["test"] == {"clips": 2, "seconds": 1.0, "recordings": 1}
    left_out = {"audio-missing": 1, "audio-not-audio": 1, "too-long": 1, "empty-text": 1}
    assert {reason: counts["left_out"].get(reason) for reason in left_out} == left_out
    assert counts["notes"] == []
    assert counts["directory"] == "data"

    frozen = load_manifest(data)
    assert frozen is not None
    assert {entry.clip_id for entry in held_out(data)} == set(held)
    assert {path.name for path in data.iterdir()} == {"train", "test", "manifest.json"}
    for clip, seed in ((trained[0], 100), (held[0], 200), (read["id"], 400)):
        (path,) = data.glob(f"*/clips/{clip}.wav")
        assert np.array_equal(soundfile.read(path)[0], soundfile.read(_spool(folder, sound(seed)))[0])
    assert sides(db) == {TRAINED: "train", HELD: "held-out", psalms: "train"}
    manifest = json.loads((data / "manifest.json").read_bytes())
    assert {row["run_id"]: row["kind"] for row in manifest["clips"]} == {
        first: "extraction",
        second: "extraction",
        psalms: "reading",
    }
    assert other not in (data / "manifest.json").read_text()

    again = ambara(clean_stack, folder, "export", "-l", "sermon", "--run", psalms, "-o", "again")
    assert again.returncode == 0, again.stderr
    said = " ".join(again.stdout.split())
    for words in (
        "reading: ",
        "Exported to again",
        "whose audio file is missing",
        "audio-missing",
        "longer than the model hears",
    ):
        assert words in said
    assert (folder / "again" / "manifest.json").read_bytes() == (data / "manifest.json").read_bytes()


def _spool(folder: Path, content: bytes) -> Path:
    path = folder / "spool.wav"
    path.write_bytes(content)
    return path


async def test_growth_and_the_daemons_choice_change_no_side(clean_stack: Any, db: Database, folder: Path) -> None:
    """What is stored stands above the hash; newcomers get theirs beside it; an export of one side says so."""
    async with team(clean_stack) as editor:
        one, _ = await corrected(editor, HELD, ["iray"], seed=1)
        db.execute("insert into training_recordings (recording, side) values (%s, 'train')", [HELD])
        two, _ = await corrected(editor, TRAINED, ["roa"], seed=2)
        done = ambara(clean_stack, folder, "export", "--run", one, "--run", two, "-o", "d1", "--json")
        assert sides(db) == {HELD: "train", TRAINED: "held-out"}, done.stderr
        await corrected(editor, "tape11.mp3", ["telo"], seed=3)
    done = ambara(clean_stack, folder, "export", "--run", two, "-o", "d2", "--json")
    assert sides(db) == {HELD: "train", TRAINED: "held-out", "tape11.mp3": "held-out"}
    counts = json.loads(done.stdout)
    assert (counts["train"]["clips"], counts["test"]["clips"]) == (0, 1)
    assert "train/ is empty" in counts["notes"][0]
    done = ambara(clean_stack, folder, "export", "--run", one, "-o", "d3")
    assert "None of these recordings is held out" in done.stdout
    assert rows(folder / "d3" / "test") == {}


async def test_one_recording_alone_is_all_training_and_nothing_is_decided(
    clean_stack: Any, db: Database, folder: Path
) -> None:
    async with team(clean_stack) as editor:
        _, clips = await corrected(editor, HELD, ["iray", "roa"], seed=1)
    (folder / "empty").mkdir()
    done = ambara(clean_stack, folder, "export", "-l", "sermon", "-o", "empty")
    assert done.returncode == 0, done.stderr
    assert "nothing is held out yet, so test/ is empty" in " ".join(done.stdout.split())
    assert rows(folder / "empty" / "train").keys() == {f"clips/{clip}.wav" for clip in clips}
    assert (folder / "empty" / "test" / "metadata.csv").read_bytes() == b"file_name,transcription\r\n"
    assert sides(db) == {}


async def test_the_audio_of_a_local_run_directory_comes_first(clean_stack: Any, db: Database, folder: Path) -> None:
    async with team(clean_stack) as editor:
        run, (clip,) = await corrected(editor, TRAINED, ["iray"], seed=1)
    (folder / "run" / "clips").mkdir(parents=True)
    (folder / "run" / "clips" / "clip_00000.wav").write_bytes(sound(2, seconds=1.0))
    write_config(folder, audio={"run_dirs": {"sermon": "run"}})
    done = ambara(clean_stack, folder, "export", "--run", run, "-o", "data")
    assert done.returncode == 0, done.stderr
    assert soundfile.info(folder / "data" / "train" / "clips" / f"{clip}.wav").frames == 16_000


async def test_what_cannot_be_exported_is_one_sentence_and_leaves_nothing(
    clean_stack: Any, db: Database, folder: Path
) -> None:
    async with team(clean_stack) as editor:
        await editor.sync_extraction([{"file_name": "clips/a.wav"}], label="untouched")
        await corrected(editor, TRAINED, [" "], seed=1, label="blank")
        await corrected(editor, TRAINED, ["teny"], seed=1)
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").write_text("mine")
    before = everything(folder)

    def refused(code: int, *arguments: str) -> str:
        done = ambara(clean_stack, folder, "export", *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        assert done.stderr.startswith("ambara: ")
        assert done.stderr.count("\n") == 1, done.stderr
        assert everything(folder) == before
        return done.stderr

    assert "Name the runs to export" in refused(78, "-o", "data")
    assert "No run has the label 'sermno'" in refused(78, "-l", "sermno", "-o", "data")
    assert "full is not empty" in refused(78, "-l", "sermon", "-o", "full")
    assert "Not a directory" in refused(78, "-l", "sermon", "-o", "full/notes.txt/data")
    assert "nobody has corrected one" in refused(1, "-l", "untouched", "-o", "data")
    assert "1 without text" in refused(1, "-l", "blank", "-o", "data")
    assert ambara(clean_stack, folder, "export", "-l", "sermon").returncode == 2


def interrupted(clean_stack: Any, folder: Path, ends: signal.Signals) -> int:
    """Export to `data`, and end that when the first clip is there. Returns the exit code."""
    command = [sys.executable, "-m", "daemon", "export", "-l", "sermon", "-o", "data"]
    with subprocess.Popen(command, cwd=folder, env=environment(clean_stack, folder)) as export:
        deadline = time.monotonic() + GUARD_S
        while not list(folder.glob("data/.unfinished-*/*/clips/*.wav")):
            assert export.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        export.send_signal(ends)
        return export.wait(GUARD_S)


@pytest.mark.parametrize(("ends", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
async def test_an_interrupted_export_leaves_nothing_that_looks_whole(
    clean_stack: Any, db: Database, folder: Path, ends: signal.Signals, code: int
) -> None:
    """Stopped in the middle, by hand or by the machine; the same command again is whole, if need be elsewhere."""
    async with team(clean_stack) as editor:
        await corrected(editor, TRAINED, ["iray", "roa"], seed=1)
        run, _ = await corrected(editor, HELD, ["telo"], seed=10)
    db.execute(
        "insert into clips (run_id, file_name, source_file, corrected_transcription, status) "
        "select %s, 'clips/gone_' || n || '.wav', 'tape0.mp3', 'lasa', 'corrected' from generate_series(1, 800) n",
        [run],
    )
    assert interrupted(clean_stack, folder, ends) == code
    data = folder / "data"
    if ends == signal.SIGINT:
        assert not data.exists()
    else:
        assert load_manifest(data) is None
        assert not (data / "train").exists()
        refused = ambara(clean_stack, folder, "export", "-l", "sermon", "-o", "data")
        assert "not empty" in refused.stderr
    db.execute("delete from clips where file_name like 'clips/gone_%'")
    done = ambara(clean_stack, folder, "export", "-l", "sermon", "-o", "data2", "--json")
    assert json.loads(done.stdout)["train"]["clips"] == 2
