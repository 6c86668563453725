"""How long nothing is drafted while another version goes live, through the gate and by hand. For `pipeline.py`."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Callable

from pipeline_bench import BUCKET, Bench
from psycopg.types.json import Json

from daemon.learning.rows import comparison_row
from handlers.snapshot import Comparison

SWAP_CLIPS, SWAP_PAUSE_S, SWAP_ROUNDS = 40, 0.05, 15
"""Clips before a change of the model and between two looks whether it is done, and how many looks."""


async def swaps(bench: Bench, pid: int) -> None:
    """A row: clips come one after the other while the trained version goes live through its gate, the base by hand,
    and the trained version again."""
    await asyncio.sleep(3)
    base = bench.scalar("select id from model_versions where stage = 'live'")
    whole = "kind = 'trained' and fingerprint not like 'untrained:%%'"
    trained = bench.scalar(f"select max(id) from model_versions where {whole}")
    if trained is None:
        raise SystemExit("no version was trained")

    def by_hand(version: int) -> None:
        bench.db.execute("select ambara_promote(%s, null, 'by hand')", [version])

    changes: dict[str, Callable[[], None] | None] = {
        "no change": None,
        "promoted by the gate (by figures made up)": lambda: found_better(bench, trained, base, pid),
        "by hand": lambda: by_hand(base),
        "by hand again": lambda: by_hand(trained),
    }
    told, between = [], []
    for what, change in changes.items():
        longest, across = await gap(bench, change)
        told.append(f"{what} {longest * 1000:.0f} ms")
        between += [f"{across * 1000:.0f} ms"] if change else []
        await bench.until(lambda: bench.scalar("select (ambara_snapshot() ->> 'ready')::int") == 0)
    bench.say("longest gap between two drafts while a version is made live", ", ".join(told), "<= 1 batch more")
    bench.say("- from the last draft by the one to the first by the other", ", ".join(between))


def found_better(bench: Bench, version: int, live: int, pid: int) -> None:
    """Have the daemon find a candidate that its judge holds for better; what was really compared is no matter here."""
    better = Comparison(
        live,
        clips=1000,
        recordings=100,
        words=5000,
        live_wer=1,
        candidate_wer=0,
        gain_low=0.95,
        gain_high=1,
        confidence=1,
    )
    change = "update model_versions set stage = 'candidate', detail = detail || jsonb_build_object('comparison', %s)"
    bench.db.execute(f"{change} where id = %s", [Json(comparison_row(better)), version])
    os.kill(pid, signal.SIGHUP)  # with its settings it takes up all questions again


async def gap(bench: Bench, change: Callable[[], None] | None) -> tuple[float, float]:
    """Seconds between two drafts, while clips come steadily and the live version changes: at most, and of the two
    between which it changes."""
    began, swapped, done = bench.scalar("select now()"), len(bench.said("model swapped")), change is None
    for number in range(SWAP_ROUNDS):
        done = done or len(bench.said("model swapped")) > swapped
        for _ in range(SWAP_CLIPS):
            bench.new(BUCKET)
            await asyncio.sleep(SWAP_PAUSE_S)
        if change and number == 0:
            change()
        elif done and number > 1:
            break
    else:
        raise SystemExit(f"no other version is in memory after {SWAP_ROUNDS * SWAP_CLIPS} clips")
    query = "select extract(epoch from created_at)::float, version_id from drafts where created_at > %s order by id"
    drafts = list(itertools.pairwise(bench.db.execute(query, [began]).fetchall()))
    across = [later[0] - earlier[0] for earlier, later in drafts if earlier[1] != later[1]]
    return max(later[0] - earlier[0] for earlier, later in drafts), max(across, default=0.0)
