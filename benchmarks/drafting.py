"""Drafting a backlog: the ways that are usual, and ours, over the same clips on the same weights in one run.

    python benchmarks/drafting.py [--shape tiny] [--clips 32] [--seconds 8] [--batch 16] [--runs 2] [--threads 1]

Weights of a published size, random but for the one sentence of 40 tokens that they say to everything (`shapes`), so
that all have equal work. CPU seconds, the least of several runs; drafting alone, models loaded and warm. `peers` tells
what each way is; "the whole daemon" is the processor time of all its processes, over `--daemon` times the clips.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import psutil
import psycopg
import torch
from peers import Draft, with_faster_whisper, with_ours, with_transformers
from report import Cost, Table, fastest, heading
from shapes import SENTENCE, SHAPES, make

from daemon.asr.transcriber import SAMPLE_RATE, Waveform
from daemon.asr.whisper.load import hush
from daemon.asr.whisper.windows import Windows
from daemon.local.speech import concatenate, speak_corpus, wav_bytes


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


def ways(folder: Path, batch: int, threads: int) -> Iterator[tuple[str, Draft]]:
    """Everything that is compared; each is let go before the next is loaded."""
    whole, fitted = Windows.whole(30.0), Windows.right_sized(30.0)
    yield "the origin's loop: transformers, one by one, 30 s", with_transformers(folder, 1)
    yield "transformers, batched, 30 s", with_transformers(folder, batch)
    yield "faster-whisper, batched, 30 s, float32", with_faster_whisper(folder, batch, "float32", threads)
    yield "faster-whisper, batched, 30 s, int8", with_faster_whisper(folder, batch, "int8", threads)
    yield "ours: transformers, 30 s", with_ours(folder, batch, "transformers", "auto", whole)
    yield "ours: CTranslate2 int8, 30 s", with_ours(folder, batch, "ctranslate2", "auto", whole)
    yield "ours: transformers, right-sized", with_ours(folder, batch, "transformers", "auto", fitted)
    yield "ours: CTranslate2 float32, right-sized", with_ours(folder, batch, "ctranslate2", "float32", fitted)
    yield "ours: CTranslate2 int8, right-sized", with_ours(folder, batch, "ctranslate2", "auto", fitted)


def main() -> None:
    """Measure and print a table. Exits with 1 if one of them says something else than the others."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--shape", choices=SHAPES, default="tiny")
    arguments.add_argument("--clips", type=int, default=32)
    arguments.add_argument("--seconds", type=float, default=8.0)
    arguments.add_argument("--batch", type=int, default=16)
    arguments.add_argument("--runs", type=int, default=2)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--daemon", type=int, default=4, help="so many times the clips through the daemon; 0: not")
    given = arguments.parse_args()
    hush()
    torch.set_num_threads(given.threads)
    waves = clips(given.clips, given.seconds)
    audio_s = sum(len(wave) for wave in waves) / SAMPLE_RATE
    print(f"{heading()}; whisper-{given.shape}, {len(waves)} clips, {audio_s:.0f} s of speech,", end=" ")
    print(f"batches of {given.batch}, threads: {given.threads}\n")
    table = Table(("way", "CPU s", "of the loop", "audio seconds per CPU second", "same words"))
    loop: Cost | None = None
    differ = False
    with tempfile.TemporaryDirectory(prefix="ambara-bench-") as folder:
        model = make(given.shape, Path(folder) / given.shape)
        for name, draft in ways(model, given.batch, given.threads):
            draft(waves[:2])
            said = draft(waves)
            found = fastest(lambda draft=draft: draft(waves), given.runs)
            loop = loop or found
            same = sum(SENTENCE in text for text in said)
            differ |= same < len(waves)
            speed = f"{loop.cpu_s / found.cpu_s:.1f}x"
            table.add(name, f"{found.cpu_s:.1f}", speed, f"{audio_s / found.cpu_s:.1f}", f"{same} of {len(waves)}")
        many = [*waves] * given.daemon
        if many and loop:
            work = Path(folder) / "daemon"
            work.mkdir()
            found, said = asyncio.run(through_the_daemon(model, many, work, given.threads))
            each_s = found.cpu_s / given.daemon
            same = sum(SENTENCE in text for text in said)
            table.add(
                f"ours: the whole daemon, {len(many)} clips, audio from Storage, drafts in the database",
                f"{each_s:.1f}",
                f"{loop.cpu_s / each_s:.1f}x",
                f"{audio_s / each_s:.1f}",
                f"{same} of {len(many)}",
            )
            differ |= same < len(many)
    raise SystemExit(differ)


if __name__ == "__main__":
    main()
