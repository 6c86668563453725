"""Most useful clips first, among people who are at work, and in a real daemon that is started with it and without."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from pathlib import Path
from typing import Any

import audit
from crowd import Crowd, crowd
from daemon_process import daemon_process
from history import History
from supabase import AsyncClient
from witness import Database, clip_rows, insert_clips, scalar, team, until, waiting, write_run

from daemon.asr.transcriber import Draft
from daemon.clips import ClipStore
from daemon.local.speech import speak_corpus
from daemon.ports import Drafted, Outcome

RUN = "00000000-0000-4000-8000-000000000014"
SET = "select count(*) from clips where priority > 0 and priority < 1"


def reached(working: Crowd, acts: int) -> bool:
    return working.acts >= acts


async def test_people_at_work_keep_everything(
    clean_stack: Any, db: Database, supabase_client: AsyncClient, tmp_path: Path
) -> None:
    """Every writer of the editor against daemons that set priorities; at the end all is as if they never had."""
    dice = random.Random(14)
    history = History(tmp_path / "history.jsonl")
    stores = [ClipStore(supabase_client, f"sorts-{number}", useful_first=True) for number in range(2)]
    numbers: list[int] = []
    over, people_over = asyncio.Event(), asyncio.Event()

    async def go_live() -> None:
        name = f"model {len(numbers)}"
        numbers.append((await stores[0].register(name, name, {}, go_live=True))[0])

    async def work(store: ClipStore) -> None:
        while not over.is_set():
            version = numbers[-1]
            claims = await store.claim(version, 16, 60)
            await asyncio.sleep(0.05)
            left = [Drafted(c, Draft(audit.stamp(store.worker, c.fence, "x"), -0.2, (), dice.random())) for c in claims]
            while left:
                outcomes = await store.submit(version, left)
                left = [each for each in left if outcomes[each.claim.clip_id] is Outcome.BUSY]

    await go_live()
    with audit.audited(db):
        audit.allow_priorities(db)
        async with team(clean_stack) as editor:
            rows = await editor.clips(await editor.sync_extraction([{"file_name": f"{n}.wav"} for n in range(60)]))
        with history.statement("insert", {}, [row["id"] for row in rows]):
            pass
        async with asyncio.TaskGroup() as tasks:
            for store in stores:
                tasks.create_task(work(store))
            async with crowd(clean_stack, history, dice, pause_s=0.01) as working, asyncio.TaskGroup() as people:
                people.create_task(working.work(4, rows, people_over))
                for _ in range(2):
                    enough = working.acts + 25
                    await until(partial(reached, working, enough), "people at work")
                    await go_live()
                people_over.set()
            await until(lambda: waiting(db) == 0, "everything drafted")
            over.set()
        assert scalar(db, SET) > 0
        assert history.broken(db, but=["priority"]) == []
        while await stores[0].give_back_priorities():
            pass
        assert history.broken(db) == []
        assert audit.violations(db) == []
        assert scalar(db, SET) == 0


async def test_a_daemon_sets_them_and_gives_them_back_when_it_is_started_without(
    clean_stack: Any, db: Database, tmp_path: Path
) -> None:
    names = write_run(tmp_path / "run", speak_corpus("B", 6, seed=514), 6)
    audio = {"run_dirs": {RUN: tmp_path / "run"}}
    insert_clips(db, RUN, list(names))
    with daemon_process(clean_stack, tmp_path, drafting={"useful_first": True}, audio=audio) as daemon:
        await until(lambda: waiting(db) == 0, "drafted")
        assert daemon.stop() == 0
    given = scalar(db, SET)
    assert given > 0
    before = clip_rows(db)
    with daemon_process(clean_stack, tmp_path, audio=audio) as daemon:
        daemon.wait_for("priorities given back", clips=given)
        assert scalar(db, "select count(*) from clips where priority <> 0") == 0
        assert daemon.stop() == 0
    for clip, row in clip_rows(db).items():
        assert row | {name: before[clip][name] for name in ("priority", "updated_at")} == before[clip]
    assert scalar(db, "select count(*) from drafts") == len(names), "neither write was a reason to draft again"
