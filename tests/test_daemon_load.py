"""One real daemon under load, and under load with something broken: every clip is drafted, each once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from daemon_process import DaemonProcess, daemon_process
from witness import (
    Database,
    clip_rows,
    deserted,
    drafted_by_machine,
    drafted_more_than_once,
    insert_clips,
    scalar,
    team,
    until,
    waiting,
    wer,
    write_run,
)

from daemon.local.speech import speak_corpus
from daemon.local.stack import LocalStack

RUN = "00000000-0000-4000-8000-000000000001"
CLIPS = 2000

AUDIT = """
create schema if not exists audit;
grant usage on schema audit to public;
create table audit.updates (clip_id uuid, changed text[]);
create function audit.note() returns trigger language plpgsql security definer as $$
begin
  insert into audit.updates select new.id, coalesce(array_agg(key order by key), '{}')
  from jsonb_each(to_jsonb(new)) join jsonb_each(to_jsonb(old)) o using (key) where jsonb_each.value <> o.value;
  return null;
end $$;
create trigger audit after update on public.clips for each row execute function audit.note();
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("daemon")


@pytest.fixture(scope="module")
def said(folder: Path) -> dict[str, str]:
    """File name -> text, for every clip of the run directory."""
    return write_run(folder / "run", speak_corpus("A", 20, seed=502), CLIPS)


@pytest.fixture(scope="module")
def daemon(stack: Any, folder: Path, said: dict[str, str]) -> Iterator[DaemonProcess]:
    stack.ensure()
    stack.truncate()
    drafting = {"sweep_seconds": 3, "lease_seconds": 10}
    with daemon_process(stack, folder, drafting=drafting, audio={"run_dirs": {RUN: folder / "run"}}) as running:
        yield running
        assert running.running, running.output


@pytest.fixture
def db(stack: Any, daemon: DaemonProcess) -> Iterator[Database]:
    with deserted(stack.db_url) as connection:
        yield connection


@pytest.fixture
def audit(db: Database) -> Iterator[None]:
    """Counts the updates of each clip, and which columns they changed."""
    db.execute(AUDIT)
    yield
    db.execute("drop trigger audit on public.clips; drop schema audit cascade")


def all_drafted(db: Database, said: dict[str, str]) -> None:
    """Every clip has its own draft, once, from its own audio."""
    assert len(drafted_by_machine(db)) == len(said) == scalar(db, "select count(*) from drafts")
    assert drafted_more_than_once(db) == 0
    assert wer(said, clip_rows(db)) < 0.1


async def test_2000_clips_in_500_row_statements_are_updated_once_each(
    stack: Any, db: Database, audit: None, said: dict[str, str]
) -> None:
    """And each update changes the draft alone (and the time that a trigger of the editor's keeps)."""
    db.execute("insert into runs (id, label) values (%s, 'load')", [RUN])
    async with team(stack) as editor:
        await editor.sync_extraction([{"file_name": name, "duration_sec": 2.0} for name in said], run_id=RUN)
    await until(lambda: waiting(db) == 0, "2,000 clips drafted", guard_s=300)
    all_drafted(db, said)
    updates = db.execute(
        "select count(*), count(distinct clip_id), array_agg(distinct changed::text) from audit.updates"
    )
    assert updates.fetchall() == [(CLIPS, CLIPS, ["{draft_transcription,updated_at}"])]


@pytest.mark.parametrize("faults", [["mute"], ["hollow", "cut"]], ids=["mute", "subscribed but nothing flows"])
async def test_the_sweep_finds_what_a_deaf_feed_does_not(
    local_stack: LocalStack, db: Database, daemon: DaemonProcess, said: dict[str, str], faults: list[str]
) -> None:
    control = f"{local_stack.url}/_local/realtime/faults"
    key = {"apikey": local_stack.service_role_key}
    async with httpx.AsyncClient(trust_env=False, headers=key) as http:
        try:
            for fault in faults:
                (await http.post(control, json={"action": fault})).raise_for_status()
            for start in range(0, 60, 20):
                insert_clips(db, RUN, list(said)[start : start + 20])
                await until(lambda n=start + 20: len(drafted_by_machine(db)) == n, "drafts without a feed")
        finally:
            await http.post(control, json={"action": "clear"})
    assert drafted_more_than_once(db) == 0
