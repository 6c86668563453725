"""What reads all corrections is given its time, by the client and by the database."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import psycopg
import pytest

from daemon import supabase_client
from daemon.database import Database
from daemon.errors import TemporaryError
from daemon.supabase_client import PATIENT, TIMEOUT, connect, http_client


@contextmanager
def slow_database(seconds: float) -> Iterator[str]:
    """The address of a Data API that takes so long to answer anything."""
    over = threading.Event()

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            over.wait(seconds)
            body = json.dumps(self.path.rpartition("/")[2]).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            over.set()
            server.shutdown()
            serving.join()


async def test_a_long_count_is_waited_for_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supabase_client, "TIMEOUT", httpx.Timeout(0.3, connect=TIMEOUT.connect))
    with slow_database(2.0) as url:
        async with http_client() as http:
            database = Database(await connect(url, "key", http))
            assert await database.call("ambara_training", {}, str) == "ambara_training"
            began = time.monotonic()
            with pytest.raises(TemporaryError, match=r"ReadTimeout in ambara_claim") as told:
                await database.call("ambara_claim", {}, str)
            assert told.value.reason == "database-away"
            assert time.monotonic() - began < 2.0, "it gave up before the answer came"


def test_the_database_gives_the_same_functions_their_time(db: psycopg.Connection[Any]) -> None:
    """`statement_timeout` of a function holds for a whole request, with PostgREST of 12.2 and later."""
    rows = db.execute(
        "select proname, array(select c from unnest(proconfig) c where c like 'statement_timeout=%') from pg_proc "
        "where pronamespace = 'public'::regnamespace and proname like 'ambara\\_%'"
    ).fetchall()
    given = {name: config for name, config in rows if config}
    assert given == {name: ["statement_timeout=55s"] for name in PATIENT}
