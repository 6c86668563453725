"""Real daemons that come, go and die: what they held is drafted all the same, each clip once."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from daemon_process import ENDS_S, DaemonProcess, ambara, daemon_process
from witness import (
    Database,
    claimed,
    clip_rows,
    drafted_by_machine,
    drafted_more_than_once,
    insert_clips,
    people_kept,
    scalar,
    team,
    until,
    waiting,
    wer,
    write_run,
)

from daemon.local.speech import speak_corpus

RUN = "00000000-0000-4000-8000-000000000001"
OTHER_RUN = "00000000-0000-4000-8000-000000000002"
DRAFTING = {"sweep_seconds": 2, "lease_seconds": 10, "claim_clips": 32, "batch_clips": 8}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audio") / "run"


@pytest.fixture(scope="module")
def said(run: Path) -> dict[str, str]:
    """File name -> text, for every clip of the run directory."""
    return write_run(run, speak_corpus("A", 20, seed=504), 300)


@pytest.fixture
def settings(run: Path, said: dict[str, str]) -> dict[str, Any]:
    return {"drafting": DRAFTING, "audio": {"run_dirs": dict.fromkeys((RUN, OTHER_RUN), run)}}


@pytest.fixture
def db(clean_stack: Any) -> Iterator[Database]:
    with psycopg.connect(clean_stack.db_url, autocommit=True) as connection:
        yield connection


async def test_ready_is_told_when_it_can_draft_and_sigterm_in_a_load_ends_it_cleanly(
    clean_stack: Any, db: Database, settings: dict[str, Any], said: dict[str, str], tmp_path: Path
) -> None:
    """Exit code 0, no claim kept, no row left in `ambara_daemons`; and the key in no line of the most talkative log."""
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(ENDS_S)
        log = {"format": "json", "level": "debug"}
        told = {"NOTIFY_SOCKET": str(address)}
        with daemon_process(clean_stack, tmp_path, ready=False, env=told, log=log, **settings) as daemon:
            daemon.wait_for("loading the model")
            told_so_far = messages(manager)
            assert b"STATUS=starting: loading the model" in told_so_far
            assert {message.partition(b"=")[0] for message in told_so_far} == {b"EXTEND_TIMEOUT_USEC", b"STATUS"}
            daemon.wait_for("ready")
            assert b"READY" in heard(manager)
            assert clean_stack.service_role_key not in command_line(daemon)
            assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
            insert_clips(db, RUN, list(said))
            await until(lambda: drafted_by_machine(db) and claimed(db), "the middle of a load", pause_s=0.01)
            heard(manager)  # the kernel keeps ten
            assert daemon.stop() == 0
            assert b"STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC=20000000" in messages(manager)
            assert "Traceback" not in daemon.output
            assert clean_stack.service_role_key not in daemon.output
    assert 0 < len(drafted_by_machine(db)) < len(said)
    assert claimed(db) == 0
    assert waiting(db) == len(said) - len(drafted_by_machine(db))
    assert scalar(db, "select count(*) from ambara_daemons") == 0


def command_line(daemon: DaemonProcess) -> str:
    """What everybody on the machine can read."""
    return Path(f"/proc/{daemon.child.pid}/cmdline").read_text(encoding="utf-8")


def heard(manager: socket.socket) -> set[bytes]:
    """The first name of each message that the service manager was sent since it last listened."""
    return {message.partition(b"=")[0] for message in messages(manager)}


def messages(manager: socket.socket) -> list[bytes]:
    """What the service manager was told since it last listened."""
    manager.setblocking(False)
    told = []
    try:
        while True:
            told.append(manager.recv(4096))
    except BlockingIOError:
        return told
    finally:
        manager.settimeout(ENDS_S)


async def test_a_killed_daemon_is_succeeded_and_two_at_once_share_the_work(
    clean_stack: Any, db: Database, settings: dict[str, Any], said: dict[str, str], tmp_path: Path
) -> None:
    """First one is killed with claims in its hands. Then two take over: each clip is drafted exactly once."""
    with daemon_process(clean_stack, tmp_path / "killed", **settings) as killed:
        insert_clips(db, RUN, list(said))
        await until(lambda: len(drafted_by_machine(db)) >= 20 and claimed(db), "the middle of a load", pause_s=0.01)
        killed.kill()
    async with team(clean_stack) as editor:
        clips = await editor.clips(RUN)
        await editor.save(clips[0], "a person's words")
        await editor.autosave(clips[-1], "a person's wo")
    people = {clips[0]["id"], clips[-1]["id"]}
    before = clip_rows(db)
    assert waiting(db) > 0
    with ExitStack() as both:
        daemons = [
            both.enter_context(daemon_process(clean_stack, tmp_path / name, ready=False, **settings))
            for name in ("one", "two")
        ]
        for daemon in daemons:
            daemon.wait_for("ready")
        await until(lambda: waiting(db) == 0, "what the killed one left is drafted")
        after = clip_rows(db)
        assert {i: after[i] for i in people} == {i: before[i] for i in people}
        assert all(people_kept(before[i], after[i]) for i in before)
        assert drafted_by_machine(db).keys() >= before.keys() - people

        insert_clips(db, OTHER_RUN, list(said))
        await until(lambda: waiting(db) == 0, "everything is drafted")
        shown = json.loads(ambara(clean_stack, tmp_path / "one", "status", "--json").stdout)
        assert {each["state"]["pid"] for each in shown["daemons"]} >= {daemon.child.pid for daemon in daemons}
    assert drafted_more_than_once(db) == 0
    second = {i: row for i, row in clip_rows(db).items() if row["run_id"] == OTHER_RUN}
    assert wer(said, second) < 0.1
    workers = "select count(distinct worker) from drafts join clips c on c.id = clip_id where c.run_id = %s"
    assert scalar(db, workers, OTHER_RUN) == 2
