"""Does a daemon grow with every round of correcting, training, judging, going live and drafting again?

    python benchmarks/rounds.py [--rounds 20]

The real daemon on an embedded Supabase with the carried small Whisper; each round is as short as it can be. After each,
when the daemon is idle: its memory (resident; proportional and unshared with its children's; each in MB), its open
files and threads, its children, the state directory and the temporary one, and the rows of the log of drafts. Where the
gate does not find a candidate better, a person makes it live, so that every round swaps the model. Exits with 1 when
the resident memory has grown by 50 MB or more between the second round and the last.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import psycopg
from report import heading

from daemon.local.resident import running_daemon
from daemon.local.speech import Utterance, speak_corpus, wav_bytes
from daemon.local.stack import LocalStack
from daemon.supabase_client import AsyncClient, connect, http_client

NEW, HELD_OUT, WAITING = 6, 6, 24
"""Clips: corrected in each round, of each of the two held-out recordings, and pending to the end."""
DRIFT_MB = 50.0
GIVE_UP_S = 300.0
RESTS_S = 10.0
IDLE_S = 2.0
SETTINGS = f"""
[drafting]
sweep_seconds = 1

[training]
min_new_clips = {NEW}
growth = 0
cooldown_minutes = 0
start_from = "live"
batch_size = 12
gradient_accumulation = 1
learning_rate = 5e-4
spec_augment = false
arguments = {{ max_steps = 12 }}

[promotion]
min_gain = 0
confidence = 0.5
min_clips = 2

[log]
format = "json"
"""
Db = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """Sizes after a round."""

    seconds: float
    by: str
    rss: float
    pss: float
    uss: float
    files: int
    threads: int
    children: int
    state: float
    temporary: float
    drafts: int

    def row(self, number: int) -> str:
        """One line of the table."""
        return (
            f"| {number} | {self.seconds:.0f} | {self.by} | {self.rss:.1f} | {self.pss:.1f} | {self.uss:.1f} "
            f"| {self.files} | {self.threads} | {self.children} | {self.state:.1f} | {self.temporary:.1f} "
            f"| {self.drafts} |"
        )


HEAD = (
    "| round | seconds | made live by | RSS | PSS | USS "
    "| files | threads | children | state MB | temporary MB | drafts |"
)


class Team:
    """People who correct, and the tapes that they correct."""

    def __init__(self, db: Db, client: AsyncClient, spoken: Iterator[Utterance]) -> None:
        self.db = db
        self.client = client
        self.spoken = spoken
        self.run = scalar(db, "insert into runs (label) values ('rounds') returning id")
        self.clips = 0

    async def upload(self, count: int, recording: str, *, corrected: bool) -> None:
        """Clips of a recording, their audio first."""
        for said in islice(self.spoken, count):
            self.clips += 1
            name = f"clips/{self.clips:05}.wav"
            await self.client.storage.from_("clips").upload(f"{self.run}/{name}", wav_bytes(said.audio))
            self.db.execute(
                "insert into clips (run_id, file_name, source_file, duration_sec, status, corrected_transcription) "
                "values (%s, %s, %s, %s, %s, %s)",
                [
                    self.run,
                    name,
                    recording,
                    said.seconds,
                    "corrected" if corrected else "pending",
                    said.text if corrected else None,
                ],
            )

    async def round(self) -> str:
        """Correct, and wait until a new version has drafted everything again. Returns who made it live."""
        before = scalar(self.db, "select max(id) from model_versions")
        await self.upload(NEW, "corrected.mp3", corrected=True)
        by, judged = "the gate", None
        for _ in ticks():
            row = self.db.execute(
                "select id, stage, reason, detail ? 'comparison' from model_versions where id > %s", [before]
            ).fetchone()
            if row is None or row[1] == "training":
                continue
            if row[1] == "live" and self.drafted(row[0]):
                return by
            judged = judged or (time.monotonic() if row[3] else None)
            rests = judged is not None and time.monotonic() - judged > RESTS_S
            if row[1] == "rejected" or (row[1] == "candidate" and rests):
                assert row[3], f"version {row[0]} was not trained: {row[2]}"
                by = "hand"
                self.db.execute("select ambara_promote(%s, null, 'by hand')", [row[0]])
        raise AssertionError("unreachable")

    def drafted(self, version: int) -> bool:
        """Whether every pending clip shows this version's draft."""
        query = (
            "select count(*) from clips c join draft_state s on s.clip_id = c.id where c.status = 'pending' "
            "and s.version_id = %s and s.lease_until is null"
        )
        return bool(scalar(self.db, query, version) == WAITING)


def ticks() -> Iterator[None]:
    """Look again, until it is time to give up."""
    began = time.monotonic()
    while time.monotonic() - began < GIVE_UP_S:
        yield
        time.sleep(0.1)
    raise SystemExit(f"nothing for {GIVE_UP_S:.0f} s")


async def measure(stack: LocalStack, spoken: Sequence[Utterance], folder: Path, rounds: int) -> list[Sample]:
    """Play so many rounds and look after each."""
    temporary = folder / "tmp"
    temporary.mkdir()
    samples: list[Sample] = []
    async with http_client() as http, running_daemon(stack, folder, SETTINGS, {"TMPDIR": str(temporary)}) as pid:
        client = await connect(stack.url, stack.service_role_key, http)
        with psycopg.connect(stack.db_url, autocommit=True) as db:
            for recording, side in (("corrected.mp3", "train"), ("one.mp3", "held-out"), ("two.mp3", "held-out")):
                db.execute("insert into training_recordings (recording, side) values (%s, %s)", [recording, side])
            team = Team(db, client, iter(spoken))
            for recording in ("one.mp3", "two.mp3"):
                await team.upload(HELD_OUT, recording, corrected=True)
            await team.upload(WAITING, "today.mp3", corrected=False)
            print(HEAD, "|---" * HEAD.count(" | "), sep="\n", end="|---|\n")
            for number in range(1, rounds + 1):
                began = time.monotonic()
                by = await team.round()
                seconds = time.monotonic() - began
                await asyncio.sleep(IDLE_S)
                drafts = scalar(db, "select count(*) from drafts")
                samples.append(look(pid, seconds, by, folder / "state", temporary, drafts))
                print(samples[-1].row(number), flush=True)
    return samples


def look(pid: int, seconds: float, by: str, state: Path, temporary: Path, drafts: int) -> Sample:
    """The daemon's sizes now."""
    process = psutil.Process(pid)
    children = process.children(recursive=True)
    full = [each.memory_full_info() for each in (process, *children)]
    return Sample(
        seconds=seconds,
        by=by,
        rss=process.memory_info().rss / 1e6,
        pss=sum(each.pss for each in full) / 1e6,
        uss=sum(each.uss for each in full) / 1e6,
        files=process.num_fds(),
        threads=process.num_threads(),
        children=len(children),
        state=size_of(state),
        temporary=size_of(temporary),
        drafts=drafts,
    )


def size_of(folder: Path) -> float:
    """MB of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def scalar(db: Db, query: str, *values: Any) -> Any:
    """The one value that a query returns."""
    row = db.execute(query.encode(), values).fetchone()
    assert row is not None
    return row[0]


def main() -> int:
    """Play, print, judge."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=20, help="at least 3")
    rounds = max(3, arguments.parse_args().rounds)
    count = 2 * HELD_OUT + WAITING + rounds * NEW
    spoken = list({each.text: each for each in speak_corpus("B", 2 * count, seed=5)}.values())[:count]
    print(f"{heading()}; {rounds} rounds\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="ambara-rounds-") as folder, LocalStack.start() as stack:
        samples = asyncio.run(measure(stack, spoken, Path(folder), rounds))
    drift = samples[-1].rss - samples[1].rss
    steps = statistics.linear_regression(range(len(samples) - 1), [each.rss for each in samples[1:]])
    print(f"\nRSS from round 2 to round {rounds}: {drift:+.1f} MB ({steps.slope:+.2f} MB a round by regression)")
    return 1 if drift >= DRIFT_MB else 0


if __name__ == "__main__":
    sys.exit(main())
