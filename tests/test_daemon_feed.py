"""A real daemon that sweeps once in ten minutes: what is drafted promptly was announced by the feed."""

from __future__ import annotations

import asyncio
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
    until,
    wer,
    write_run,
)

from daemon.local.speech import speak_corpus
from daemon.local.stack import LocalStack

RUN = "00000000-0000-4000-8000-000000000001"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("daemon")


@pytest.fixture(scope="module")
def said(folder: Path) -> dict[str, str]:
    """File name -> text, for every clip of the run directory."""
    return write_run(folder / "run", speak_corpus("A", 20, seed=503), 60)


@pytest.fixture(scope="module")
def daemon(stack: Any, folder: Path, said: dict[str, str]) -> Iterator[DaemonProcess]:
    stack.ensure()
    stack.truncate()
    if isinstance(stack, LocalStack):  # a server that counts no events of earlier tests towards its rate limit
        stack.stop_gateway()
        stack.start_gateway()
    drafting = {"sweep_seconds": 600}
    with daemon_process(stack, folder, drafting=drafting, audio={"run_dirs": {RUN: folder / "run"}}) as running:
        running.wait_for("feed", state="live")
        yield running
        assert running.running, running.output


@pytest.fixture
def db(stack: Any, daemon: DaemonProcess) -> Iterator[Database]:
    with deserted(stack.db_url) as connection:
        yield connection


async def test_each_insert_is_drafted_on_its_announcement(db: Database, said: dict[str, str]) -> None:
    for done, name in enumerate(list(said)[:5], start=1):
        insert_clips(db, RUN, [name])
        await until(lambda n=done: len(drafted_by_machine(db)) == n, "the clip drafted")
    assert wer({name: said[name] for name in list(said)[:5]}, clip_rows(db)) < 0.2


@pytest.mark.parametrize("fault", [{"action": "close", "code": 1001}, {"action": "cut"}, {"action": "stale_close"}])
async def test_a_lost_connection_between_inserts_loses_no_clip(
    local_stack: LocalStack, db: Database, daemon: DaemonProcess, said: dict[str, str], fault: dict[str, Any]
) -> None:
    """Between two connections nothing is announced: the look after each new subscription finds it."""
    before = len(daemon.said("feed", state="live"))
    names = list(said)[:60]
    for name in names[:20]:
        insert_clips(db, RUN, [name])
        await asyncio.sleep(0.02)
    await until(lambda: len(drafted_by_machine(db)) == 20, "what came before drafted")
    async with httpx.AsyncClient(trust_env=False, headers={"apikey": local_stack.service_role_key}) as http:
        (await http.post(f"{local_stack.url}/_local/realtime/faults", json=fault)).raise_for_status()
    insert_clips(db, RUN, names[20:])
    await until(lambda: len(drafted_by_machine(db)) == len(names), "all clips drafted")
    await until(lambda: len(daemon.said("feed", state="live")) > before, "the feed live again")
    assert drafted_more_than_once(db) == 0
