"""`ambara status` against a real Supabase, and against servers that are none."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from daemon.cli import status_view
from daemon.cli.status import fetch
from daemon.errors import ConfigurationError, TemporaryError

if TYPE_CHECKING:
    from conftest import AnyStack

Db = psycopg.Connection[tuple[object, ...]]


def status(url: str, key: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"SUPABASE_URL": url, "SUPABASE_SERVICE_ROLE_KEY": key, "AMBARA_CONFIG": ""}
    return subprocess.run(
        [sys.executable, "-m", "daemon", "status", *arguments],
        env=env,
        cwd=Path(__file__).parent,  # where no ambara.toml lies
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def refused(url: str, key: str) -> tuple[int, str]:
    """Exit code and the one line on stderr, which repeats no key."""
    done = status(url, key)
    assert done.stdout == ""
    assert key not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    return done.returncode, done.stderr


@pytest.fixture
def populated(db: Db) -> Db:
    """A clip of every kind, a live model, and a daemon that fell silent."""
    db.execute(
        """
        with r as (insert into runs (label) values ('r') returning id)
        insert into clips (run_id, file_name, status, corrected_transcription, duration_sec)
        select id, n, s, c, 30 from r, (values
          ('a', 'pending', null), ('b', 'pending', null), ('c', 'pending', null),
          ('d', 'pending', 'half'), ('e', 'corrected', 'whole'), ('f', 'discarded', null)) v (n, s, c)
        """
    )
    db.execute("select ambara_register_model('openai/whisper-small', 'f', '{}', true)")
    db.execute(
        """
        insert into draft_state (clip_id, reason, message, retry_at, failed_seq, failed_row_at)
        select c.id, 'audio-broken', 'It is no [red]WAV[/red]' || chr(27) || '[2J.', 'infinity',
          (select live_seq from model_versions where stage = 'live'), c.updated_at
        from clips c where file_name = 'a'
        """
    )
    state = {"version": 1, "name": "openai/whisper-small", "device": "cuda", "drafted": 41}
    state |= {"feed": "deaf", "feed_reason": "no canary for 60 s"}
    db.execute("insert into ambara_daemons (worker, state) values ('host-1', %s)", [json.dumps(state)])
    db.execute("insert into ambara_daemons (worker, seen_at) values ('host-2', now() - interval '200 s')")
    return db


def test_one_screen(populated: Db, clean_stack: AnyStack) -> None:
    done = status(clean_stack.url, clean_stack.service_role_key)
    assert (done.returncode, done.stderr) == (0, "")
    for said in (
        "openai/whisper-small (base)",
        "2 ready, 1 failed",
        "1 with a person at work",
        "4 pending, 1 corrected, 1 discarded",
        "1 new, 0.5 minutes",
        "1 × audio-broken",
        "It is no [red]WAV[/red]�[2J.",
        "v1 on cuda (openai/whisper-small), 41 drafted",
        "feed deaf: no canary for 60 s",
        "silent for 20",
    ):
        assert said in done.stdout
    assert "\x1b" not in done.stdout
    assert "alter publication" not in done.stdout


def test_json(populated: Db, clean_stack: AnyStack) -> None:
    found = json.loads(status(clean_stack.url, clean_stack.service_role_key, "--json").stdout)
    assert found["queue"] == {"ready": 2, "failed": 1}
    assert found["live"]["name"] == "openai/whisper-small"


def test_an_empty_database(clean_stack: AnyStack) -> None:
    done = status(clean_stack.url, clean_stack.service_role_key)
    assert done.returncode == 0
    for said in ("no version yet", "no daemon is running", "no failures", "empty"):
        assert said in done.stdout


def test_a_table_that_is_not_published_comes_with_the_sql_that_mends_it(db: Db, clean_stack: AnyStack) -> None:
    db.execute("alter publication supabase_realtime drop table clips")
    try:
        done = status(clean_stack.url, clean_stack.service_role_key)
        mend = "alter publication supabase_realtime add table public.clips;"
        assert mend in done.stdout
        assert done.returncode == 0
    finally:
        db.execute(mend)
    assert "alter publication" not in status(clean_stack.url, clean_stack.service_role_key).stdout


def test_both_tables_missing_from_the_publication() -> None:
    advice = status_view.publication_advice([])
    assert advice is not None
    assert advice.endswith("alter publication supabase_realtime add table public.clips, public.ambara_daemons;")
    assert status_view.publication_advice(["ambara_daemons", "clips"]) is None


def test_keys_that_the_server_refuses(clean_stack: AnyStack) -> None:
    """A key signed by somebody else, and a role that may not ask."""
    header, payload, signature = clean_stack.service_role_key.split(".")
    forged = f"{header}.{payload}.{signature[::-1]}"
    code, said = refused(clean_stack.url, forged)
    assert (code, "refuses the key" in said) == (78, True)
    code, said = refused(clean_stack.url, clean_stack.mint("authenticator"))
    assert (code, "service_role" in said) == (78, True)


def test_a_database_without_the_function(db: Db, clean_stack: AnyStack) -> None:
    db.execute("alter function ambara_status() rename to ambara_status_gone")
    try:
        code, said = refused(clean_stack.url, clean_stack.service_role_key)
        assert (code, "ambara migrate" in said) == (78, True)
    finally:
        db.execute("alter function ambara_status_gone() rename to ambara_status")


@contextmanager
def answering(number: int, body: bytes = b"", **headers: str) -> Iterator[tuple[str, list[str]]]:
    """A web server that gives one answer to everything. Yields its URL and the paths it was asked for."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(number)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            """What a client that follows a redirect would send."""
            self.do_POST()

        def log_message(self, *_: Any) -> None:
            """Stay quiet."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("number", "body", "code", "said"),
    [
        (200, b"<html>hello</html>", 78, "not like a Supabase project"),
        (200, b"[]", 78, "not like a Supabase project"),
        (404, b"nothing here", 78, "does not look like a Supabase project"),
        (404, b'{"code": "PGRST202"}', 78, "ambara migrate"),
        (401, b'{"message": "Invalid API key"}', 78, "refuses the key"),
        (403, b'{"code": "42501", "message": "permission denied"}', 78, "service_role"),
        (503, b"", 1, "cannot answer now (HTTP 503)"),
        (540, b"", 78, "paused"),
    ],
)
def test_other_answers(number: int, body: bytes, code: int, said: str) -> None:
    kind = {78: ConfigurationError, 1: TemporaryError}[code]
    with answering(number, body) as (url, _), pytest.raises(kind, match=re.escape(said)) as caught:
        fetch(url, "sb_secret_hush")
    assert "hush" not in str(caught.value)


def test_a_redirect_is_not_followed() -> None:
    """The other origin would be handed the key."""
    with answering(200, b"{}") as (other, asked), answering(302, Location=f"{other}/take") as (url, _):
        code, said = refused(url, "sb_secret_hush")
    assert (code, "redirect" in said) == (78, True)
    assert asked == []


def test_a_server_that_is_away_or_does_not_exist() -> None:
    code, said = refused("http://127.0.0.1:1", "sb_secret_hush")
    assert (code, "does not answer" in said) == (1, True)
    code, said = refused("https://nosuch.invalid", "sb_secret_hush")
    assert code in {1, 78}  # 78 where a resolver says that there is no such name, 1 where there is no resolver
    assert "SUPABASE_URL" in said


def test_markup_in_a_worker_name_is_text_and_a_card_s_memory_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    card = {"version": 3, "device": "cuda:0", "memory": {"free": 67_500_000_000, "total": 80_000_000_000}}
    daemons = [
        {"worker": "[link=http://x]w[/link]\x07", "silent_s": 3, "state": None},
        {"worker": "with-a-card", "silent_s": 3, "state": card},
        {"worker": "a-stranger", "silent_s": 3, "state": {**card, "memory": {"free": "much", "total": []}}},
    ]
    status_view.show({"queue": {}, "daemons": daemons, "published": ["clips", "ambara_daemons"]}, "http://x")
    said = capsys.readouterr().out
    assert "[link=http://x]w[/link]�" in said
    assert "v3 on cuda:0, 12.5 of 80.0 GB in use, 0 drafted" in said
    assert "v3 on cuda:0, 0 drafted" in said
