"""The key is in the daemon's memory and in its requests, and nowhere else, whatever happens to the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import psycopg
import pytest
from daemon_process import daemon_process
from fault_record import Fault
from hostile_keys import PLACES, TALKATIVE, Project, another_key, found, in_a_file, pages
from hostile_redirect import elsewhere, signpost
from witness import Database, drafted_by_machine, insert_clips, until

from daemon.local.sockets import free_port
from daemon.local.speech import Utterance, speak_corpus, wav_bytes
from daemon.local.stack import LocalStack

RETURNS_S = 10.0
TAPES, CLIPS = 3, 8
TRAINING = {
    "enabled": True,
    "min_new_clips": 12,
    "batch_size": 8,
    "gradient_accumulation": 1,
    "held_out_share": 0.4,
    "arguments": {"max_steps": 400},
}


@pytest.fixture
def db(local_stack: LocalStack) -> Any:
    local_stack.ensure()
    local_stack.truncate()
    with psycopg.connect(local_stack.db_url, autocommit=True) as connection:
        yield connection


def lay(db: Database, folder: Path, spoken: Sequence[Utterance]) -> tuple[dict[str, Path], str]:
    """Corrected tapes to learn from, and a run that waits. Returns the directories of all, and the last one's id."""
    dirs: dict[str, Path] = {}
    left = iter(spoken)
    for tape in range(TAPES + 1):
        run = str(uuid4())
        dirs[run] = folder / f"tape-{tape}"
        (dirs[run] / "clips").mkdir(parents=True)
        db.execute("insert into runs (id, label) values (%s, %s)", [run, f"tape {tape}"])
        for number in range(CLIPS):
            clip = next(left)
            name = f"clips/{number}.wav"
            (dirs[run] / name).write_bytes(wav_bytes(clip.audio))
            text, status = (clip.text, "corrected") if tape < TAPES else (None, "pending")
            db.execute(
                "insert into clips (run_id, file_name, source_file, duration_sec, draft_transcription, "
                "corrected_transcription, status) values (%s, %s, %s, %s, 'stock draft', %s, %s)",
                [run, name, f"{tape}.mp3", clip.seconds, text, status],
            )
    return dirs, run


@pytest.mark.fault("I6", "secrets-in-a-life")
@pytest.mark.parametrize("form", ["json", pytest.param("console", marks=pytest.mark.long)])
async def test_a_life_at_debug(fault: Fault, local_stack: LocalStack, db: Database, tmp_path: Path, form: str) -> None:
    """Start, drafting, training, answers that repeat the key, a refusal, the end; every process is looked at."""
    fault.injected(
        f"a daemon at debug level ({form}): drafting, training, errors that repeat the request, a refused key"
    )
    key = another_key(local_stack, form)
    spoken = list({each.text: each for each in speak_corpus("B", 80, seed=77)}.values())
    dirs, waiting = lay(db, tmp_path, spoken)
    folder = tmp_path / "daemon"
    hushed = in_a_file(folder, key)
    with elsewhere() as other, signpost(Project(local_stack.url, key), other) as project:
        sections = {
            "drafting": {"sweep_seconds": 1},
            "audio": {"run_dirs": dirs},
            "training": TRAINING,
            "log": {**TALKATIVE, "format": form},
            "status": {"enabled": True, "port": 0},
        }
        with daemon_process(project, folder, ready=False, env=hushed, **sections) as daemon:
            await until(lambda: len(drafted_by_machine(db)) >= CLIPS, "drafted")
            await until(lambda: _steps(db) > 0, "the trainer is at work")
            children = psutil.Process(daemon.child.pid).children(recursive=True)
            kinds = {
                name for name in ("audio_child", "learning.child") for c in children if name in " ".join(c.cmdline())
            }
            fault.holds("trainer and decoder were seen", {"audio_child", "learning.child"} - kinds)
            said = await asyncio.to_thread(pages, folder)
            fault.holds("its page was read", [place for place in PLACES if not said.get(place)])
            fault.holds("I6 no key at work", await asyncio.to_thread(found, key, daemon, folder))

            before = len(project.sent_away)
            project.away = dict.fromkeys(("rest", "storage", "realtime"), 500)
            project.cut()
            insert_clips(db, waiting, ["clips/not-there.wav"])
            await until(lambda: {"rest", "realtime"} <= _services(project.sent_away[before:]), "errors were answered")
            project.away = {}
            await until(lambda: _state(db) == "audio-missing", "it works again, and the clip has no audio")
            before = len(project.sent_away)
            project.away = {"storage": 403}
            db.execute("update draft_state set retry_at = now() where reason is not null")
            await until(lambda: "storage" in _services(project.sent_away[before:]), "Storage refused")
            fault.holds("I6 no key after errors", await asyncio.to_thread(found, key, daemon, folder))

            before = len(project.sent_away)
            project.away = dict.fromkeys(("rest", "storage", "realtime"), 401)
            await until(lambda: len(project.sent_away) > before + 1, "the key is refused")
            await until(lambda: "refuse" in daemon.output, "said so")
            fault.holds("I6 no key when it is refused", await asyncio.to_thread(found, key, daemon, folder))
            daemon.child.terminate()
            await until(lambda: not daemon.running, "ended")
        fault.holds("I6 no key in the end", found(key, daemon, folder))
    fault.observe(f"{len(daemon.output.splitlines())} lines of log, {sum(1 for _ in folder.rglob('*'))} files")


def _steps(db: Database) -> int:
    row = db.execute("select max((detail ->> 'step')::int) from training_runs where detail ->> 'phase' = 'training'")
    return (row.fetchone() or (0,))[0] or 0


def _state(db: Database) -> str:
    row = db.execute("select reason from draft_state where reason is not null").fetchone()
    return row[0] if row else ""


def _services(requests: Sequence[str]) -> set[str]:
    return {request.split("/")[1] for request in requests}


@pytest.mark.fault("I6", "secrets-nobody-there")
def test_nobody_is_there(fault: Fault, local_stack: LocalStack, tmp_path: Path) -> None:
    """Under a service manager, which wants it to wait."""
    fault.injected("an address at which nobody listens, at debug level")
    key = another_key(local_stack, "nobody")
    env = in_a_file(tmp_path, key) | {"NOTIFY_SOCKET": str(tmp_path / "nowhere")}
    nobody = Project(f"http://127.0.0.1:{free_port()}", key)
    with daemon_process(nobody, tmp_path, ready=False, env=env, log=TALKATIVE) as daemon:
        daemon.wait_for("waiting", times=3)
        fault.holds("I6 no key", found(key, daemon, tmp_path))


@pytest.mark.fault("F35", "key-rotation")
async def test_a_new_key(fault: Fault, local_stack: LocalStack, db: Database, tmp_path: Path) -> None:
    """The credential's file is replaced, the daemon started again."""
    rounds = fault.size(full=3, short=1)
    fault.injected(f"{rounds} times a new key in the credential's file, and a restart")
    run, audio = str(uuid4()), tmp_path / "run"
    (audio / "clips").mkdir(parents=True)
    for number, spoken in enumerate(speak_corpus("A", rounds + 1, seed=505)):
        (audio / "clips" / f"{number}.wav").write_bytes(wav_bytes(spoken.audio))
    folder = tmp_path / "daemon"
    sections = {"audio": {"run_dirs": {run: audio}}, "log": TALKATIVE}
    keys: list[str] = []
    for number in range(rounds + 1):
        keys.append(another_key(local_stack, f"round {number}"))
        env = in_a_file(folder, keys[-1])
        (folder / "daemon.log").unlink(missing_ok=True)
        with daemon_process(Project(local_stack.url, keys[-1]), folder, env=env, **sections) as daemon:
            insert_clips(db, run, [f"clips/{number}.wav"])
            if number:
                with fault.healing():
                    await until(lambda: len(drafted_by_machine(db)) > number, "drafted with the new key")  # noqa: B023
            await until(lambda: len(drafted_by_machine(db)) > number, "drafted")  # noqa: B023
            for key in keys:
                fault.holds("I6 old and new key nowhere", found(key, daemon, folder))
            fault.holds(
                "old key not in memory's files", [p.name for p in folder.iterdir() if p.name.startswith("core")]
            )
            ended = daemon.stop()
            fault.holds("a clean end", [] if ended == 0 else [ended])
    limit = RETURNS_S * fault.size(full=1, short=2)
    fault.holds("drafting again <= 10 s after the start", [fault.healing_s] if (fault.healing_s or 0) > limit else [])
