"""What does a whole daemon make of its time: a start, nothing to do, a new clip, a backlog, a trainer, a swap?

    python benchmarks/pipeline.py [--clips 600] [--behind 100000]

The real daemon with the carried small Whisper, on one thread, and an embedded Supabase on the same cores. A new clip is
inserted when the one before is drafted, and looked for every 5 ms. It comes "beside a backlog" when 2,000 clips are
before it, and `--behind` rows that the daemon does not come to meanwhile. Statements are calls of the daemon's
functions. About four minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
from pipeline_bench import BUCKET, FOLDER, Bench, name, p50_p95
from psycopg.types.json import Json
from report import heading

from daemon.learning.rows import comparison_row
from daemon.local.resident import BASE_MODEL, running_daemon
from daemon.local.speech import speak_corpus
from daemon.local.stack import LocalStack
from handlers.snapshot import Comparison

SPOKEN, CORRECTED, HELD_OUT = 120, 24, 6
"""Different clips; corrections to train on, and of each of two held-out recordings."""
BATCH, SAMPLES, STARTS, IDLE_S = 16, 20, 2, 30.0
BEFORE, CLAIMED = 2000, 400
"""Clips before a new one, and how many of them may be left when the daemon comes to what is behind."""
SWAP_CLIPS, SWAP_PAUSE_S, SWAP_ROUNDS = 40, 0.05, 15
"""Clips before a change of the model and between two looks whether it is done, and how many looks."""
ENV = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
ALONE = """
from daemon.asr.whisper.config import WhisperSettings
from daemon.asr.whisper.load import load_transcriber
load_transcriber(WhisperSettings(model={model!r})).warm_up()
"""
SETTINGS = """
[training]
min_new_clips = 24
growth = 0
cooldown_minutes = 0
batch_size = 12
gradient_accumulation = 1
learning_rate = 5e-4
spec_augment = false
arguments = {{ max_steps = 120 }}

[promotion]
min_gain = 0.9

[audio.run_dirs]
"{run}" = "{folder}/run"

[log]
format = "json"
"""


async def measure(bench: Bench, clips: int, behind: int) -> None:
    """Everything, in an order in which one part leaves what the next needs."""
    settings = SETTINGS.format(run=FOLDER, folder=bench.folder)
    await starts(bench, settings)
    async with running_daemon(bench.stack, bench.folder, settings, ENV) as pid:
        await asyncio.sleep(5)  # the feed joins
        idle = await bench.latencies(BUCKET, SAMPLES)
        bench.times("new clip, the daemon idle", idle)
        bench.say("the daemon idle", f"{await idle_share(pid):.2%} of a core", "< 1 %")
        await backlog(bench, clips)
        await trainer(bench, clips, idle)
        await swaps(bench, pid)
    fill(bench, behind)
    async with running_daemon(bench.stack, bench.folder, settings, ENV):
        left = (
            "select count(*) from clips where created_at < now() - interval '30 hours' and draft_transcription is null"
        )
        await bench.until(lambda: bench.scalar(left) < BEFORE - BATCH)
        beside = await bench.latencies(FOLDER, 3 * SAMPLES, lambda: bench.scalar(left) > CLAIMED)
        bench.times(f"new clip beside a backlog of {BEFORE} clips and {behind} rows", beside)


async def starts(bench: Bench, settings: str) -> None:
    """How long a start takes, and loading the model alone in a process of its own."""
    alone, took = [], []
    code = ALONE.format(model=str(BASE_MODEL))
    for _ in range(STARTS):
        began = time.monotonic()
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], env=os.environ | ENV, check=True)
        alone.append(time.monotonic() - began)
        began = time.monotonic()
        async with running_daemon(bench.stack, bench.folder, settings, ENV):
            took.append(time.monotonic() - began)
    bench.say("process start to READY", f"{min(took):.2f} s; the model alone {min(alone):.2f} s")
    bench.say("- beyond loading the model", f"{min(took) - min(alone):.2f} s", "<= 1 s")


async def idle_share(pid: int) -> float:
    """The share of a core that the daemon and its children take when there is nothing to do."""
    every = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]

    def used() -> float:
        return sum(each.cpu_times().user + each.cpu_times().system for each in every)

    before = used()
    await asyncio.sleep(IDLE_S)
    return (used() - before) / IDLE_S


async def backlog(bench: Bench, clips: int) -> None:
    """So many clips in one statement, and nothing else."""
    bench.db.execute("delete from clips")
    calls, turns = bench.calls(), len(bench.said("drafted"))
    began = time.monotonic()
    bench.insert(BUCKET, 0, clips)
    await bench.until(lambda: bench.scalar("select count(*) from clips where draft_transcription is null") == 0)
    took = time.monotonic() - began
    await asyncio.sleep(2)  # the turn ends
    done = bench.said("drafted")[turns:]
    device = sum(line.get("device_s", 0.0) for line in done)
    audio = sum(bench.seconds(0, clips))
    bench.say(f"backlog of {clips}", f"{clips / took:.1f} clips/s, {audio / took:.1f} s of audio a second")
    bench.say(
        "- the device at work", f"{device / took:.0%} of the time, {device / clips * BATCH * 1000:.0f} ms a batch"
    )
    bench.say("- statements a clip", f"{(bench.calls() - calls) / clips:.3f}, in {len(done)} turns", "<= 0.2")


async def trainer(bench: Bench, clips: int, idle: list[float]) -> None:
    """New clips while a trainer runs."""
    first = clips - CORRECTED - 2 * HELD_OUT
    for tape, side, count in (
        ("a.mp3", "train", CORRECTED),
        ("b.mp3", "held-out", HELD_OUT),
        ("c.mp3", "held-out", HELD_OUT),
    ):
        bench.db.execute("insert into training_recordings (recording, side) values (%s, %s)", [tape, side])
        bench.db.execute(
            "update clips set status = 'corrected', corrected_transcription = draft_transcription, source_file = %s "
            "where run_id = %s and file_name = any (%s)",
            [tape, BUCKET, [name(number) for number in range(first, first + count)]],
        )
        first += count
    await bench.until(lambda: bench.said("training begins"))
    ended = ("training finished", "training failed")
    busy = await bench.latencies(BUCKET, 5 * SAMPLES, lambda: not any(bench.said(event) for event in ended))
    bench.times("new clip while a trainer runs", busy)
    bench.say("- its p95 against idle", f"{p50_p95(busy)[1] / p50_p95(idle)[1]:.2f}", "<= 2")
    await bench.until(lambda: bench.said("compared") or bench.said("training failed"))


async def swaps(bench: Bench, pid: int) -> None:
    """Clips come one after the other while the trained version goes live through its gate, the base by hand, and the
    trained version by hand."""
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
    told = []
    for what, change in changes.items():
        told.append(f"{what} {await gap(bench, change) * 1000:.0f} ms")
        await bench.until(lambda: bench.scalar("select (ambara_snapshot() ->> 'ready')::int") == 0)
    bench.say("longest gap between two drafts while a version is made live", ", ".join(told), "<= 1 batch more")


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


async def gap(bench: Bench, change: Callable[[], None] | None) -> float:
    """Seconds between two drafts, at most, while clips come steadily and the live version changes."""
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
    query = "select extract(epoch from created_at)::float from drafts where created_at > %s order by 1"
    at = [row[0] for row in bench.db.execute(query, [began]).fetchall()]
    return max(later - earlier for earlier, later in itertools.pairwise(at))


def fill(bench: Bench, behind: int) -> None:
    """A backlog that a daemon finds when it starts; Realtime does not announce it row by row."""
    bench.db.execute("delete from clips")
    bench.db.execute("alter publication supabase_realtime drop table clips")
    bench.insert(FOLDER, 0, BEFORE, "2 days")
    bench.db.execute(
        "insert into clips (run_id, file_name, duration_sec, created_at) select %s, 'behind/' || n, 2, "
        "now() - interval '1 day' from generate_series(1, %s) n",
        [FOLDER, behind],
    )
    bench.db.execute("alter publication supabase_realtime add table clips")
    bench.db.execute("analyze clips")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=600)
    parser.add_argument("--behind", type=int, default=100_000)
    arguments = parser.parse_args()
    spoken = speak_corpus("A", SPOKEN, seed=78)
    print(f"{heading()}\n")
    with (
        tempfile.TemporaryDirectory(prefix="ambara-bench-") as folder,
        LocalStack.start() as stack,
        psycopg.connect(stack.db_url, autocommit=True) as db,
    ):
        bench = Bench(stack, db, Path(folder), spoken, {BUCKET: arguments.clips, FOLDER: BEFORE})
        bench.prepare()
        print("| figure | value | goal |\n|---|---|---|", flush=True)
        asyncio.run(measure(bench, arguments.clips, arguments.behind))


if __name__ == "__main__":
    main()
