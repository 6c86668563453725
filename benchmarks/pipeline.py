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
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import psycopg
from pipeline_bench import BUCKET, FOLDER, Bench, name, p50_p95
from pipeline_swaps import swaps
from report import heading

from daemon.local.resident import BASE_MODEL, running_daemon
from daemon.local.speech import speak_corpus
from daemon.local.stack import LocalStack

SPOKEN, CORRECTED, HELD_OUT = 120, 24, 6
"""Different clips; corrections to train on, and of each of two held-out recordings."""
BATCH, SAMPLES, STARTS, IDLE_S = 16, 20, 2, 30.0
BEFORE, CLAIMED = 2000, 400
"""Clips before a new one, and how many of them may be left when the daemon comes to what is behind."""
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
