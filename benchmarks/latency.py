"""How long after a committed insert is the draft there to be seen? Beside it: the model's own time for the clip.

    python benchmarks/latency.py [--clips 60]

The daemon is idle between clips; each clip is inserted when the one before is drafted. Audio lies in the bucket before
the row is inserted, as the extraction does it. "visible" is what a SQL client sees that looks every 2 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
from report import heading

from daemon.asr.whisper.config import WhisperSettings
from daemon.asr.whisper.load import load_transcriber
from daemon.local.resident import BASE_MODEL, running_daemon
from daemon.local.speech import Utterance, speak_corpus, wav_bytes
from daemon.local.stack import LocalStack
from daemon.supabase_client import connect, http_client

GIVE_UP_S = 60.0


async def measure(stack: LocalStack, utterances: list[Utterance], folder: Path) -> list[float]:
    """Seconds from commit to visible draft, one per clip."""
    seconds = []
    async with http_client() as http, running_daemon(stack, folder):
        client = await connect(stack.url, stack.service_role_key, http)
        run: Any = (await client.table("runs").insert({"label": "latency"}).execute()).data[0]
        await asyncio.sleep(5)  # the feed joins
        with psycopg.connect(stack.db_url, autocommit=True) as db:
            for number, utterance in enumerate(utterances):
                name = f"clips/{number}.wav"
                await client.storage.from_("clips").upload(f"{run['id']}/{name}", wav_bytes(utterance.audio))
                row = [run["id"], name, utterance.seconds]
                insert = "insert into clips (run_id, file_name, duration_sec) values (%s, %s, %s)"
                db.execute(insert, row)
                began = time.monotonic()
                while not drafted(db, run["id"], name) and time.monotonic() - began < GIVE_UP_S:  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
                seconds.append(time.monotonic() - began)
    return seconds


def drafted(db: psycopg.Connection[tuple[Any, ...]], run: str, name: str) -> bool:
    """Whether the row has its draft."""
    query = "select draft_transcription is not null from clips where run_id = %s and file_name = %s"
    return db.execute(query, [run, name]).fetchone() == (True,)


def model_alone(utterances: list[Utterance]) -> list[float]:
    """Seconds that the same model takes for each clip by itself, in this process."""
    model = load_transcriber(WhisperSettings(model=str(BASE_MODEL)))
    model.warm_up()
    seconds = []
    for utterance in utterances:
        began = time.monotonic()
        model.transcribe([utterance.audio])
        seconds.append(time.monotonic() - began)
    return seconds


def row(name: str, seconds: list[float]) -> str:
    """One line of the table, in milliseconds."""
    cuts = statistics.quantiles(seconds, n=20, method="inclusive")
    return f"| {name} | {cuts[9] * 1000:.0f} | {cuts[18] * 1000:.0f} | {max(seconds) * 1000:.0f} |"


def main() -> None:
    """Measure and print a table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--clips", type=int, default=60)
    clips = arguments.parse_args().clips
    utterances = speak_corpus("A", clips, seed=77)
    with tempfile.TemporaryDirectory(prefix="ambara-bench-") as folder, LocalStack.start() as stack:
        visible = asyncio.run(measure(stack, utterances, Path(folder)))
    alone = model_alone(utterances)
    print(f"{heading()}; {clips} clips\n")
    print("| milliseconds | p50 | p95 | most |\n|---|---|---|---|")
    print(row("insert committed -> draft visible", visible))
    print(row("the model alone, same clips", alone))
    print(row("difference", [a - b for a, b in zip(visible, alone, strict=True)]))


if __name__ == "__main__":
    main()
