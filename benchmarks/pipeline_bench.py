"""A stack with clips, and what can be seen and done beside a daemon that drafts them. For `pipeline.py`."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from daemon.local.speech import Utterance, wav_bytes
from daemon.local.stack import LocalStack
from daemon.supabase_client import connect, http_client

BUCKET, FOLDER = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
"""The run whose audio lies in the bucket, and the one whose audio lies in a directory."""
NEW = 600
"""Clips of either run that are inserted one at a time."""
GIVE_UP_S = 120.0


def name(number: int) -> str:
    """The name of a clip."""
    return f"clips/{number:05}.wav"


def p50_p95(seconds: Sequence[float]) -> tuple[float, float]:
    """Two quantiles, in milliseconds."""
    cuts = statistics.quantiles([*seconds, *seconds[: max(0, 2 - len(seconds))]], n=20, method="inclusive")
    return cuts[9] * 1000, cuts[18] * 1000


@dataclass(slots=True)
class Bench:
    """Everything that a measurement needs."""

    stack: LocalStack
    db: psycopg.Connection[Any]
    folder: Path
    spoken: Sequence[Utterance]
    sizes: dict[str, int]
    """Run -> how many clips it has audio for, the new ones apart."""
    used: dict[str, int] = field(default_factory=lambda: {BUCKET: 0, FOLDER: 0})

    def say(self, figure: str, value: str, goal: str = "") -> None:
        """A row of the table."""
        print(f"| {figure} | {value} | {goal} |", flush=True)

    def times(self, figure: str, seconds: Sequence[float], goal: str = "") -> None:
        """A row of latencies."""
        p50, p95 = p50_p95(seconds)
        self.say(figure, f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, of {len(seconds)}", goal)

    def prepare(self) -> None:
        """Two runs, and their audio."""
        clips = self.folder / "run" / "clips"
        clips.mkdir(parents=True)
        for number, each in enumerate(self.spoken):
            (clips / f"original_{number}").write_bytes(wav_bytes(each.audio))
        for number in range(self.sizes[FOLDER] + NEW):
            os.link(clips / f"original_{number % len(self.spoken)}", self.folder / "run" / name(number))
        self.db.execute("insert into runs (id, label) values (%s, 'bucket'), (%s, 'folder')", [BUCKET, FOLDER])
        self.db.execute("alter system set track_functions = 'all'")
        self.db.execute("select pg_reload_conf()")
        asyncio.run(self._upload())

    async def _upload(self) -> None:
        numbers: Iterator[int] = iter(range(self.sizes[BUCKET] + NEW))
        async with http_client() as http:
            bucket = (await connect(self.stack.url, self.stack.service_role_key, http)).storage.from_("clips")

            async def some() -> None:
                for number in numbers:
                    wav = wav_bytes(self.spoken[number % len(self.spoken)].audio)
                    await bucket.upload(f"{BUCKET}/{name(number)}", wav)

            await asyncio.gather(*(some() for _ in range(8)))

    def seconds(self, first: int, count: int) -> list[float]:
        """How long clips are."""
        return [self.spoken[number % len(self.spoken)].seconds for number in range(first, first + count)]

    def insert(self, run: str, first: int, count: int, age: str = "0 s") -> None:
        """So many rows, in one statement."""
        names = [name(number) for number in range(first, first + count)]
        self.db.execute(
            "insert into clips (run_id, file_name, duration_sec, created_at) "
            "select %s, n, s, now() - %s::interval from unnest(%s::text[], %s::float[]) as c (n, s)",
            [run, age, names, self.seconds(first, count)],
        )

    def new(self, run: str) -> str:
        """Insert one clip more. Returns its id."""
        number = self.sizes[run] + self.used[run] % NEW
        self.used[run] += 1
        self.db.execute("delete from clips where run_id = %s and file_name = %s", [run, name(number)])
        self.insert(run, number, 1)
        query = "select id::text from clips where run_id = %s and file_name = %s"
        return str(self.scalar(query, run, name(number)))

    async def latencies(self, run: str, most: int, goes_on: Callable[[], bool] = lambda: True) -> list[float]:
        """Seconds from commit to visible draft, one clip after the other."""
        query = "select draft_transcription is not null from clips where id = %s"
        found: list[float] = []
        while goes_on() and len(found) < most:
            clip, began = self.new(run), time.monotonic()
            while not self.scalar(query, clip):
                if time.monotonic() - began > GIVE_UP_S:
                    raise SystemExit(f"a clip is not drafted after {GIVE_UP_S:.0f} s:\n{self._log()[-2000:]}")
                await asyncio.sleep(0.005)
            found.append(time.monotonic() - began)
        return found

    def scalar(self, query: str, *values: Any) -> Any:
        """The one value that a query returns."""
        row = self.db.execute(query.encode(), values).fetchone()
        assert row is not None
        return row[0]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for something to become true."""
        deadline = time.monotonic() + GIVE_UP_S
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit(f"nothing for {GIVE_UP_S:.0f} s:\n{self._log()[-2000:]}")
            await asyncio.sleep(0.05)

    def _log(self) -> str:
        return (self.folder / "daemon.log").read_text(encoding="utf-8", errors="replace")

    def said(self, event: str) -> list[dict[str, Any]]:
        """The daemon's lines about an event."""
        lines = [json.loads(line) for line in self._log().splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line.get("event") == event]

    def calls(self) -> int:
        """How many statements the daemon has sent: calls of its functions."""
        time.sleep(1.5)  # the statistics come late
        query = "select sum(calls) from pg_stat_user_functions where funcname = any (ambara_called())"
        return int(self.scalar(query) or 0)
