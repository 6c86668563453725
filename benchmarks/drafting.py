"""Drafting a backlog: the ways that are usual, and ours, over the same clips on the same weights in one run.

    python benchmarks/drafting.py [--shapes tiny=128 small=64] [--seconds 8] [--batch 16] [--threads 1]

Weights of a published size, random but for the one sentence of 40 tokens that they say to everything (`shapes`), so
that all have equal work. CPU seconds for a clip, models loaded and warm. What hears each clip in half a minute takes as
long for any, and is measured on some; windows as long as the clips need many, or no two would be heard together.
`peers` tells what each way is; "the whole daemon" is the processor time of all its processes. "of faster-whisper" is
against its batched pipeline in the same numbers. Of the larger shapes only the best of each is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import psycopg
import torch
from peers import Draft, with_faster_whisper, with_ours, with_transformers
from report import Cost, Table, cost, heading
from shapes import SENTENCE, make

from daemon.asr.transcriber import SAMPLE_RATE, Waveform
from daemon.asr.whisper.load import hush
from daemon.asr.whisper.windows import Windows
from daemon.local.speech import concatenate, speak_corpus, wav_bytes

PEER = "faster-whisper"


def clips(count: int, seconds: float) -> list[Waveform]:
    """Speech of about so many seconds each, the half more or less."""
    spoken = cycle(speak_corpus("A", 120, seed=5))
    lengths = np.random.default_rng(0).uniform(0.5 * seconds, 1.5 * seconds, count)
    found = []
    for length in lengths:
        wave = concatenate([each.audio for each in islice(spoken, int(length) + 2)], pause_s=0.1)
        found.append(wave[: round(length * SAMPLE_RATE)])
    return found


async def through_the_daemon(
    model: Path, waves: Sequence[Waveform], folder: Path, threads: int
) -> tuple[Cost, list[str]]:
    """A backlog in an embedded Supabase, from the commit of its rows to the last draft; the costs are the daemon's."""
    from daemon.local.resident import running_daemon
    from daemon.local.stack import LocalStack
    from daemon.supabase_client import connect, http_client

    env = {"OMP_NUM_THREADS": str(threads)}
    with LocalStack.start() as stack, psycopg.connect(stack.db_url, autocommit=True) as db:
        async with (
            http_client() as http,
            running_daemon(stack, folder, "[training]\nenabled = false\n", env, base=model) as pid,
        ):
            client = await connect(stack.url, stack.service_role_key, http)
            run = db.execute("insert into runs (label) values ('backlog') returning id").fetchone()
            assert run
            for number, wave in enumerate(waves):
                await client.storage.from_("clips").upload(f"{run[0]}/{number:05}.wav", wav_bytes(wave))
            family = psutil.Process(pid)
            found, before, began = Cost(), _cpu(family), time.monotonic()
            with db.transaction(), db.cursor() as rows:
                insert = "insert into clips (run_id, file_name, duration_sec) values (%s, %s, %s)"
                told = [(run[0], f"{number:05}.wav", len(wave) / SAMPLE_RATE) for number, wave in enumerate(waves)]
                rows.executemany(insert, told)
            left = "select count(*) from clips where run_id = %s and draft_transcription is null"
            while (db.execute(left, run).fetchone() or (0,))[0]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            found.wall_s, found.cpu_s = time.monotonic() - began, _cpu(family) - before
            drafts = "select draft_transcription from clips where run_id = %s"
            return found, [text for (text,) in db.execute(drafts, run)]


def _cpu(process: psutil.Process) -> float:
    """Of a process, its threads, and the children that live or were waited for."""
    own = process.cpu_times()
    living = [child.cpu_times() for child in process.children(recursive=True)]
    return float(own.children_user + own.children_system + sum(each.user + each.system for each in (own, *living)))


@dataclass(frozen=True, slots=True)
class Way:
    """One that is compared."""

    name: str
    dtype: str
    draft: Draft
    share: int
    """It is measured on one of so many clips, or on a batch."""
    least: int


def ways(folder: Path, batch: int, threads: int, *, brief: bool) -> Iterator[Way]:
    """All of them, or the best of each; each is let go before the next is loaded."""
    whole, fitted = Windows.whole(30.0), Windows.right_sized(30.0)

    def ours(engine: str, dtype: str, windows: Windows, share: int) -> Way:
        told, drawn = "30 s" if windows == whole else "right-sized", "float32" if dtype == "auto" else dtype
        name = f"ours: {engine} {drawn}, {told}"
        return Way(name, drawn, with_ours(folder, batch, engine.lower(), dtype, windows), share, batch)

    yield Way("the origin's loop: transformers, one by one, 30 s", "float32", with_transformers(folder, 1), 16, 3)
    if not brief:
        yield Way("transformers, batched, 30 s", "float32", with_transformers(folder, batch), 16, batch)
    for dtype in ("int8",) if brief else ("float32", "int8"):
        draft = with_faster_whisper(folder, batch, dtype, threads)
        yield Way(f"{PEER}, batched, 30 s, {dtype}", dtype, draft, 16, batch)
    if not brief:
        yield ours("transformers", "auto", whole, 16)
        yield ours("CTranslate2", "int8", whole, 16)
        yield ours("transformers", "auto", fitted, 4)
        yield ours("CTranslate2", "float32", fitted, 2)
    yield ours("CTranslate2", "int8", fitted, 1)


@dataclass(slots=True)
class Race:
    """What was measured so far, against the first way and against the peer in the same numbers."""

    table: Table
    loop_s: float = 0.0
    peers: dict[str, float] = field(default_factory=dict)
    differ: bool = False

    def add(self, name: str, dtype: str, cpu_s: float, clips: int, said: Sequence[str]) -> None:
        """A row of the table."""
        each_s = cpu_s / clips
        self.loop_s = self.loop_s or each_s
        if name.startswith(PEER):
            self.peers[dtype] = each_s
        peer = f"{self.peers[dtype] / each_s:.1f}x" if name.startswith("ours") else ""
        same = sum(SENTENCE in text for text in said)
        self.differ |= same < clips
        self.table.add(name, f"{each_s:.2f}", f"{self.loop_s / each_s:.1f}x", peer, f"{same} of {clips}")


def race(shape: str, count: int, given: argparse.Namespace) -> None:
    """Measure one shape and print a table. Exits with 1 if one way says something else than the others."""
    hush()
    torch.set_num_threads(given.threads)
    waves = sorted(clips(count, given.seconds), key=len)  # some are as long as all
    mean_s = sum(len(wave) for wave in waves) / SAMPLE_RATE / count
    print(f"whisper-{shape}, clips of {mean_s:.1f} s, the half more or less, batches of {given.batch}:\n")
    found = Race(Table(("way", "CPU s a clip", "of the loop", f"of {PEER}", "same words")))
    with tempfile.TemporaryDirectory(prefix="ambara-bench-") as folder:
        model = make(shape, Path(folder) / shape)
        for way in ways(model, given.batch, given.threads, brief=shape != "tiny"):
            way.draft([waves[0][:SAMPLE_RATE]])
            some = np.linspace(0, count, max(way.least, count // way.share), endpoint=False)
            mine = [waves[int(at + count / len(some) / 2)] for at in some]
            spent = Cost()
            with cost(spent):
                said = way.draft(mine)
            found.add(way.name, way.dtype, spent.cpu_s, len(mine), said)
            del way  # before the next model is loaded
        work = Path(folder) / "daemon"
        work.mkdir()
        spent, said = asyncio.run(through_the_daemon(model, waves, work, given.threads))
        found.add("ours: the whole daemon, from Storage to the database", "int8", spent.cpu_s, count, said)
    print(flush=True)
    sys.exit(found.differ)


def main() -> None:
    """Measure and print the tables. Exits with 1 if one of the ways says something else than the others."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--shapes", nargs="+", default=["tiny=128"], metavar="SHAPE=CLIPS")
    arguments.add_argument("--seconds", type=float, default=8.0)
    arguments.add_argument("--batch", type=int, default=16)
    arguments.add_argument("--threads", type=int, default=1)
    given = arguments.parse_args()
    print(f"{heading()}; threads: {given.threads}\n", flush=True)
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(given.threads))
    ended = []
    for shape, _, count in (each.partition("=") for each in given.shapes):
        # Each in a process of its own: what the first did to it, the memory's habits above all, is not the next one's.
        one = get_context("spawn").Process(target=race, args=(shape, int(count), given))
        one.start()
        one.join()
        ended.append(one.exitcode)
    raise SystemExit(any(ended))


if __name__ == "__main__":
    main()
