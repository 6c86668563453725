"""Outages of one part at a time: what a client sees meanwhile, and that everything comes back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest

from daemon.local import origin
from daemon.local.process import Identity, wait_until
from daemon.local.record import Record
from daemon.local.stack import LocalStack


@pytest.fixture
def breakable(local_stack: LocalStack) -> Iterator[LocalStack]:
    """The session's stack; whatever a test leaves broken is mended after it."""
    local_stack.ensure()
    yield local_stack
    local_stack.ensure()


def test_the_url_goes_away_and_comes_back_unchanged(breakable: LocalStack) -> None:
    url = breakable.url
    breakable.stop_gateway()
    with pytest.raises(httpx.ConnectError):
        _runs(breakable)
    breakable.start_gateway()
    assert (breakable.url, _runs(breakable).status_code) == (url, 200)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_rows_outlive_a_restart_of_the_database_and_a_crash(breakable: LocalStack, mode: str) -> None:
    label = str(uuid4())
    with psycopg.connect(breakable.db_url, autocommit=True) as connection:
        connection.execute("insert into runs (label) values (%s)", [label])
        breakable.stop_postgres(mode)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    assert _runs(breakable).status_code >= 500
    breakable.start_postgres()
    assert wait_until(lambda: label in _runs(breakable).text, 30)


def test_a_killed_api_server_is_noticed_and_started_again(breakable: LocalStack) -> None:
    lite = breakable.lite.process
    assert lite is not None
    os.kill(lite.pid, signal.SIGKILL)
    assert wait_until(lambda: _runs(breakable).status_code == 503, 10)
    assert httpx.get(f"{breakable.url}/healthz").status_code == 503
    breakable.ensure()
    assert _runs(breakable).status_code == 200
    assert httpx.get(f"{breakable.url}/healthz").json() == {"status": "ok"}


def test_a_killed_database_and_gateway_are_started_again(breakable: LocalStack) -> None:
    postgres = breakable.postgres.process
    gateway = next(i for i in _children(breakable) if b"daemon.local.gateway" in _command(i))
    assert postgres is not None
    os.kill(postgres.pid, signal.SIGKILL)
    os.kill(gateway.pid, signal.SIGKILL)
    assert wait_until(lambda: postgres.poll() is not None and not gateway.alive(), 10)
    breakable.ensure()
    assert wait_until(lambda: _runs(breakable).status_code == 200, 30)


def test_a_fresh_api_server_does_not_mistake_an_outage_for_a_missing_table(breakable: LocalStack) -> None:
    breakable.reload_api()
    breakable.stop_postgres()
    assert _runs(breakable).status_code >= 500


def test_preparing_a_database_twice_changes_nothing(blank_database: str) -> None:
    origin.prepare(blank_database, minimal=False)
    with psycopg.connect(blank_database, autocommit=True) as connection:
        before = _catalog(connection)
        origin.prepare(blank_database, minimal=False)
        assert _catalog(connection) == before


def test_the_minimal_schema_lacks_just_the_optional_parts(blank_database: str) -> None:
    with psycopg.connect(blank_database, autocommit=True) as connection:
        connection.execute(origin.origin_sql(minimal=True).encode())
        minimal = _catalog(connection)
        connection.execute("drop table clip_edits, clips, runs; drop function set_updated_at")
        connection.execute(origin.origin_sql(minimal=False).encode())
        extra = _catalog(connection) - minimal
    assert {(table, column) for table, column in extra if table != "jobs"} == {
        ("runs", "type"),
        ("clips", "paragraphs"),
    }
    assert ("jobs", "progress_message") in extra


def test_an_ephemeral_stack_leaves_neither_files_nor_processes() -> None:
    """In a folder that the database's user cannot reach as well as in its own: the data may lie elsewhere."""
    stack = LocalStack.start()
    children, data = _children(stack), stack.postgres.home
    assert len(children) == 3
    assert data.exists()
    stack.down()
    assert not any(child.alive() for child in children)
    assert not stack.folder.exists()
    assert not data.exists()


def _runs(stack: LocalStack) -> httpx.Response:
    headers = {"apikey": stack.service_role_key}
    return httpx.get(f"{stack.url}/rest/v1/runs", params={"select": "label"}, headers=headers, timeout=60)


def _catalog(connection: psycopg.Connection[tuple[object, ...]]) -> set[tuple[object, ...]]:
    rows = connection.execute(
        "select table_name, column_name from information_schema.columns where table_schema = 'public'"
    )
    return set(rows)


def _children(stack: LocalStack) -> list[Identity]:
    record = Record.read(stack.folder)
    assert record is not None
    return list(record.children)


def _command(process: Identity) -> bytes:
    return Path(f"/proc/{process.pid}/cmdline").read_bytes()
