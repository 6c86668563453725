"""One real daemon and the audio that it is given: missing, broken, hostile, silent, long."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from daemon_process import DaemonProcess, ambara, daemon_process
from witness import Database, clip_rows, deserted, drafted_by_machine, scalar, team, until, waiting, wer

from daemon.local.speech import Utterance, concatenate, silence, speak_corpus, wav_bytes


@pytest.fixture(scope="module")
def spoken() -> Sequence[Utterance]:
    return speak_corpus("A", 20, seed=505)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("daemon")


@pytest.fixture(scope="module")
def daemon(stack: Any, folder: Path) -> Iterator[DaemonProcess]:
    stack.ensure()
    stack.truncate()
    with daemon_process(stack, folder, drafting={"sweep_seconds": 2}) as running:
        yield running
        assert running.running, running.output


@pytest.fixture
def db(stack: Any, daemon: DaemonProcess) -> Iterator[Database]:
    with deserted(stack.db_url) as connection:
        yield connection


def failures(stack: Any, folder: Path) -> dict[str, dict[str, Any]]:
    """What `ambara status --json` tells, by reason."""
    shown = ambara(stack, folder, "status", "--json")
    assert shown.returncode == 0, shown.stderr
    return {each["reason"]: each for each in json.loads(shown.stdout)["failures"]}


async def test_missing_audio_holds_nobody_up_and_is_drafted_when_it_is_there(
    stack: Any, db: Database, folder: Path, spoken: Sequence[Utterance]
) -> None:
    """The clip without audio has the highest priority of all."""
    audio = {f"clips/{i}.wav": wav_bytes(u.audio) for i, u in enumerate(spoken[:6])}
    missing = {"file_name": "clips/missing.wav", "priority": 9}
    async with team(stack) as editor:
        run = await editor.sync_extraction([missing], audio={})
        await editor.sync_extraction([{"file_name": name} for name in audio], audio=audio, run_id=run)
        await until(lambda: len(drafted_by_machine(db)) == 6, "all the others drafted")
        told = failures(stack, folder)["audio-missing"]
        assert (told["clips"], told["state"]) == (1, "retrying")
        assert "no audio file yet" in told["message"]
        assert "audio-missing" in ambara(stack, folder, "status").stdout

        await editor.upload(run, "clips/missing.wav", wav_bytes(spoken[7].audio))
        db.execute("update draft_state set retry_at = now() where reason = 'audio-missing'")
        await until(lambda: len(drafted_by_machine(db)) == 7, "the clip drafted after its upload")
    (late,) = [i for i, row in clip_rows(db).items() if row["file_name"] == "clips/missing.wav"]
    assert wer({"clips/missing.wav": spoken[7].text}, {late: clip_rows(db)[late]}) <= 0.25
    assert failures(stack, folder) == {}


def not_a_number() -> bytes:
    """A WAV of floats of which one is NaN."""
    wave = np.full(16_000, 0.1, dtype=np.float32)
    wave[8_000] = np.nan
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, 16_000, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


async def test_broken_files_have_their_reason_stored_and_shown(
    stack: Any, db: Database, folder: Path, spoken: Sequence[Utterance]
) -> None:
    """A sound clip behind each of them is drafted, and their rows keep the draft that they had."""
    broken = {
        "audio-empty": b"",
        "audio-not-audio": b"Not a recording, but a letter.\n" * 99,
        "audio-nonfinite": not_a_number(),
        "audio-truncated": wav_bytes(spoken[0].audio)[:20_000],
        "audio-too-short": wav_bytes(silence(0.005)),
    }
    audio = {f"clips/{reason}.wav": data for reason, data in broken.items()}
    names = [*audio, "../../etc/passwd", "clips/a\nb.wav"]
    rows = [{"file_name": name, "priority": 1} for name in names]
    sound = {f"clips/sound_{i}.wav": wav_bytes(u.audio) for i, u in enumerate(spoken[:5])}
    async with team(stack) as editor:
        await editor.sync_extraction([*rows, *({"file_name": n, "priority": 0} for n in sound)], audio=audio | sound)
        await until(lambda: len(drafted_by_machine(db)) == 5, "the sound clips drafted")
        await until(lambda: waiting(db) == 0, "nothing waits")
    told = {reason: (each["clips"], each["state"]) for reason, each in failures(stack, folder).items()}
    assert told == dict.fromkeys(broken, (1, "failed")) | {"audio-path": (2, "failed")}
    drafts = {row["file_name"]: row["draft_transcription"] for row in clip_rows(db).values()}
    assert {drafts[name] for name in names} == {"stock draft"}


async def test_silence_is_an_empty_draft_with_a_flag(stack: Any, db: Database) -> None:
    async with team(stack) as editor:
        audio = {"clips/0.wav": wav_bytes(silence(2.0))}
        await editor.sync_extraction([{"file_name": "clips/0.wav"}], audio=audio)
        await until(lambda: drafted_by_machine(db), "the clip drafted")
    assert list(drafted_by_machine(db).values()) == [""]
    assert db.execute("select text, confidence, flags from drafts").fetchall() == [("", None, ["silence"])]


async def test_a_clip_longer_than_the_window_is_drafted_in_chunks(
    stack: Any, db: Database, spoken: Sequence[Utterance]
) -> None:
    """Three sentences: more than twice the three seconds that the model hears at once."""
    said = spoken[:3]
    wave = concatenate([u.audio for u in said], pause_s=0.6)
    assert len(wave) > 6 * 16_000 * 0.9
    async with team(stack) as editor:
        await editor.sync_extraction([{"file_name": "clips/0.wav"}], audio={"clips/0.wav": wav_bytes(wave)})
        await until(lambda: drafted_by_machine(db), "the clip drafted")
    assert wer({"clips/0.wav": " ".join(u.text for u in said)}, clip_rows(db)) <= 0.25
    assert "chunked" in scalar(db, "select flags from drafts")
