"""Migrations are applied under a daemon at work, and one that was started after them works beside it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path

import audit
import psycopg
import pytest
from fault_record import Fault
from scene import SELDOM, Scene, a_scene
from schema_memory import NEXT
from warm_start import Nest
from witness import scalar

from daemon import migrate
from daemon.clips import SCHEMA_VERSION
from daemon.errors import TemporaryError
from daemon.local.stack import LocalStack

EVERY = migrate.migrations()
_SAYS = re.compile(r"function public\.ambara_schema_version\(\).*?select (\d+)", re.DOTALL)


def _enough() -> int:
    """With so many of the migrations this code can work."""
    found = [int(said[1]) if (said := _SAYS.search(each.sql)) else 0 for each in EVERY]
    return next(number for number, version in enumerate(found, 1) if version >= SCHEMA_VERSION)


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch, local_stack: LocalStack) -> Iterator[LocalStack]:
    """A Supabase of its own, whose owner has not migrated for as long as that may be; not where all are external."""
    with monkeypatch.context() as before:
        before.setattr(migrate, "migrations", lambda: EVERY[: _enough()])
        stack = LocalStack.start()
    with stack:
        yield stack


@pytest.mark.fault("F47", "upgrade")
async def test_migrated_under_a_daemon_at_work(
    fault: Fault, early: LocalStack, nest: Nest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the migrations, then the daemons one after the other. Each clip is drafted once by each version."""
    clips = fault.size(full=150, short=40)
    later = len(EVERY) - _enough()
    monkeypatch.setattr(migrate, "migrations", lambda: [*EVERY, migrate.Migration("99990101000000", "next", NEXT)])
    fault.injected(
        f"under a daemon and 3 people at work: {later} migrations and one that there is not yet, then a second "
        f"daemon beside the first, then the first ends; {clips} inserts each time"
    )
    fault.observe("both are of this code: the older one was started on the older schema")
    with a_scene(early, nest, tmp_path, fault) as scene, nest.in_scene(scene, "older", drafting=SELDOM) as older:
        await scene.live(older)
        first = scene.insert_at_once(clips)
        async with scene.people(first, 3, pause_s=0.5):
            waiting = migrate.pending(early.db_url)
            fault.holds("there were some", [] if len(waiting) == later + 1 else waiting)
            fault.observe(f"migrated at try {await asyncio.to_thread(_migrate, early.db_url)}")
            fault.holds("they were applied", migrate.pending(early.db_url))
            await asyncio.to_thread(early.reload_api)
            scene.insert_at_once(clips)
            await scene.drafted(name="I1 by the older one, on the newer schema")
            with nest.in_scene(scene, "newer", drafting=SELDOM) as newer:
                await scene.live(newer)
                await _both(fault, scene, clips)
                fault.holds("the older one ends in order", [code] if (code := older.stop()) else [])
                scene.insert_at_once(clips)
                await scene.drafted()
                await scene.live(newer)
                scene.same(newer)
        scene.kept()
        scene.silent(older, newer)
        with psycopg.connect(early.db_url, autocommit=True) as db:
            fault.holds("each clip once, unless somebody touched it", audit.doubled(db))


def _migrate(db_url: str) -> int:
    """As a person does who is told to try again. Returns how often."""
    tries = 1
    while True:
        try:
            migrate.apply(db_url)
        except TemporaryError:
            assert tries < 20, "somebody holds a table for ever"
            time.sleep(1)
            tries += 1
        else:
            return tries


async def _both(fault: Fault, scene: Scene, clips: int) -> None:
    """Both take clips until both have had some."""
    with psycopg.connect(scene.stack.db_url, autocommit=True) as db:
        workers = "select count(distinct worker) from drafts d join ambara_daemons using (worker)"
        for _ in range(10):
            scene.insert_at_once(clips)
            await scene.drafted()
            if scalar(db, workers) == 2:
                break
        fault.holds("side by side", [] if scalar(db, workers) == 2 else ["one did all"])
