"""Realtime is a convenience: without it the sweep finds the clips, and `ambara status` says how to get it back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from daemon_process import ambara, daemon_process
from witness import Database, drafted_by_machine, insert_clips, until, write_run

from daemon.local.speech import speak_corpus
from daemon.local.stack import LocalStack

RUN = "00000000-0000-4000-8000-000000000001"
SWEEP = {"sweep_seconds": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("audio") / "run"
    write_run(directory, speak_corpus("A", 4, seed=506), 20)
    return directory


@pytest.fixture
def db(clean_stack: Any) -> Iterator[Database]:
    with psycopg.connect(clean_stack.db_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def unpublished(db: Database) -> Iterator[None]:
    """A project whose publication does not name `clips`."""
    db.execute("alter publication supabase_realtime drop table clips")
    yield
    db.execute("alter publication supabase_realtime add table clips")


async def drafts_on_its_own(db: Database) -> None:
    """They are inserted after the look at the start."""
    for done in (10, 20):
        insert_clips(db, RUN, [f"clips/clip_{i:05}.wav" for i in range(done - 10, done)])
        await until(lambda n=done: len(drafted_by_machine(db)) == n, "drafts by the sweep")


async def test_a_project_without_the_publication(
    clean_stack: Any, db: Database, unpublished: None, run: Path, tmp_path: Path
) -> None:
    with daemon_process(clean_stack, tmp_path, drafting=SWEEP, audio={"run_dirs": {RUN: run}}) as daemon:
        await drafts_on_its_own(db)
        said = daemon.wait_for("feed", state="absent")["why"]
        assert "alter publication supabase_realtime add table" in said
        shown = ambara(clean_stack, tmp_path, "status")
        assert shown.returncode == 0
        assert "alter publication supabase_realtime add table public.clips;" in shown.stdout
        assert daemon.stop() == 0


async def test_a_daemon_told_not_to_listen_that_starts_before_supabase_does(
    local_stack: LocalStack, db: Database, run: Path, tmp_path: Path
) -> None:
    """Under a service manager it waits for the network; then it lives by the sweep."""
    settings = {"drafting": SWEEP, "realtime": {"enabled": False}, "audio": {"run_dirs": {RUN: run}}}
    manager = {"NOTIFY_SOCKET": str(tmp_path / "nobody")}
    local_stack.stop_gateway()
    with daemon_process(local_stack, tmp_path, ready=False, env=manager, **settings) as daemon:
        try:
            daemon.wait_for("waiting", what="Supabase")
        finally:
            local_stack.start_gateway()
        daemon.wait_for("ready")
        await drafts_on_its_own(db)
        assert daemon.said("feed") == []
        assert daemon.stop() == 0
