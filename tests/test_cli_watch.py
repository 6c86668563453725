"""`ambara status --watch`: for a program, in a pipe, in a terminal; and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from witness import Database, insert_clips

from daemon.cli import status_watch
from daemon.errors import ConfigurationError, TemporaryError

if TYPE_CHECKING:
    from conftest import AnyStack

DISCARDED = b"update clips set status = 'discarded' where file_name = 'clips/1.wav'"


@pytest.fixture
def three(db: Database) -> Database:
    insert_clips(db, "00000000-0000-4000-8000-000000000001", [f"clips/{i}.wav" for i in range(3)])
    return db


@contextmanager
def watching(stack: AnyStack, *arguments: str, **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """`ambara status --watch`. Ctrl-C, after the block, ends it with 0 and without a word."""
    env = os.environ | {"SUPABASE_URL": stack.url, "SUPABASE_SERVICE_ROLE_KEY": stack.service_role_key}
    command = [sys.executable, "-m", "daemon", "status", "--watch", *arguments]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    env |= {"AMBARA_CONFIG": "", "TERM": "xterm", "LINES": "60", "COLUMNS": "120"}
    with subprocess.Popen(command, env=env, cwd=Path(__file__).parent, **streams) as child:
        try:
            yield child
            child.send_signal(signal.SIGINT)
            assert child.wait(30) == 0
            assert child.stderr is None or child.stderr.read() == b""
        finally:
            child.kill()


def test_watched_by_a_program(three: Database, clean_stack: AnyStack) -> None:
    """A line each, as soon as it is known."""
    with watching(clean_stack, "--json") as child:
        assert child.stdout
        assert json.loads(child.stdout.readline())["queue"] == {"ready": 3}
        three.execute(DISCARDED)
        assert json.loads(child.stdout.readline())["queue"] == {"ready": 2}


def test_watched_in_a_pipe(three: Database, clean_stack: AnyStack) -> None:
    """One screen below the other."""
    with watching(clean_stack) as child:
        assert child.stdout
        lines = (line for line in child.stdout if line.startswith(b"queue"))
        assert b"3 ready" in next(lines)
        three.execute(DISCARDED)
        assert b"2 ready" in next(lines)


def test_watched_in_a_terminal(three: Database, clean_stack: AnyStack) -> None:
    """In place; what the terminal showed before is there again afterwards."""
    ours, its = os.openpty()
    seen = b""

    def until(said: bytes) -> None:
        nonlocal seen
        while said not in seen:
            seen += os.read(ours, 65536)

    with watching(clean_stack, stdout=its):
        until(b"3 ready")
        three.execute(DISCARDED)
        until(b"2 ready")
    until(b"\x1b[?1049l")
    assert b"Ctrl-C ends this" in seen


def test_a_project_that_goes_away_while_it_is_watched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told and waited for; what only a person can mend ends it."""
    monkeypatch.setattr(status_watch, "EVERY_S", 0.0)
    answers: list[Any] = [{"queue": {}}, TemporaryError("away"), {"queue": {"ready": 1}}, ConfigurationError("key")]

    def look() -> dict[str, Any]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    with pytest.raises(ConfigurationError):
        status_watch.watch(look, "http://x", as_json=True)
    told = capsys.readouterr()
    assert told.out.splitlines() == ['{"queue": {}}', '{"queue": {"ready": 1}}']
    assert "away" in told.err
    answers[:] = [TemporaryError("away")]
    with pytest.raises(TemporaryError):
        status_watch.watch(look, "http://x", as_json=False)
