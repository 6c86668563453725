"""Does the status page grow with those who look at it?

    python benchmarks/page.py [--requests 2000] [--clips 5000]

A process that serves the page as the daemon does, over an embedded Supabase with some thousand clips of every kind,
forty versions and what people changed in half a year. It reads the database five times a second, where the daemon does
so every 15 s. Front page, `/metrics`, and pages of versions with and without words are asked for in turn. Exits with 1
when the resident memory has grown by 20 MB or more from the first fifth of the requests to the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
from report import heading
from scale_rows import generate

from daemon.database import Database
from daemon.learning.ledger import Ledger
from daemon.learning.registry import Registry
from daemon.local.sockets import free_port
from daemon.local.stack import LocalStack
from daemon.sections import StatusSettings
from daemon.status.here import Here
from daemon.status.page import Page
from daemon.status.server import serve
from daemon.status.truth import Questions, Truth, Watch
from daemon.supabase_client import connect, http_client
from handlers.policy import Policy

GROWS_MB = 20.0
EVERY_S = 0.2
VERSIONS, JUDGED_CLIPS = 40, 500
PLACES = (
    "/",
    "/metrics",
    "/",
    "/versions/{0}",
    "/",
    "/metrics",
    "/versions/1",
    "/",
    "/metrics",
    "/versions/{0}?transcripts=1",
)
GUARDS = [{"name": f"guard {n}", "live": 0.01, "candidate": 0.01, "tolerance": 0.05} for n in range(8)]
LEARNED = """
insert into model_versions (name, fingerprint, kind, stage, live_seq, live_at, reason, detail)
select 'trained-' || n, 'made ' || n, 'trained', 'retired', -n, now() - interval '1 day' * n,
  'better: word error rate 41.0 %% -> 30.0 %%', jsonb_build_object('comparison', %s::jsonb)
from generate_series(1, %s) n;
"""
# In place of what `generate` measured, which is of one version and of one day.
EDITED = """
delete from draft_edits;
insert into draft_edits (clip_id, version_id, draft_id, text_md5, recording, corrected_at, words, characters,
  word_edits, character_edits)
select distinct on (d.clip_id) d.clip_id, v.id, d.id, md5(c.corrected_transcription), c.source_file,
  now() - interval '1 week' * (v.id % 26), 20, 100, d.id % 9, 2 * (d.id % 9)
from drafts d join clips c on c.id = d.clip_id and c.status = 'corrected'
join model_versions v on v.id = 1 + d.id % (select count(*) from model_versions)
"""


def fill(db_url: str, clips: int, models: Path) -> int:
    """Rows, and the evidence of one version. Returns its number."""
    compared: dict[str, object] = {
        "against": 1,
        "clips": 200,
        "recordings": 5,
        "words": 2000,
        "live_wer": 0.41,
        "candidate_wer": 0.3,
    }
    compared |= {"gain_low": 0.09, "gain_high": 0.13, "confidence": 0.95, "guards": GUARDS}
    with psycopg.connect(db_url, autocommit=True) as db:
        generate(db, clips)
        db.execute(LEARNED, [json.dumps(compared), VERSIONS])
        db.execute(EDITED)
        row = db.execute("select max(id) from model_versions").fetchone()
    number = int(row[0]) if row else 0
    words = "manao ahoana ry tompoko sy ianareo rehetra " * 3
    heard = {"text": words.replace("ry", "ny"), "errors": 3, "flags": []}
    judged = [
        {
            "clip_id": f"clip {n}",
            "recording": f"tape {n % 9}",
            "reference": words,
            "words": 21,
            "live": heard,
            "candidate": heard,
        }
        for n in range(JUDGED_CLIPS)
    ]
    folder = models / f"{number:04}"
    folder.mkdir(parents=True)
    (folder / "evidence.json").write_text(json.dumps({"totals": {}, "clips": judged}), encoding="utf-8")
    return number


async def served(url: str, key: str, folder: Path, port: int) -> None:
    """Serve until killed; a byte in `folder`/reads for each read of the database."""
    here = Here(worker="page", started_at=datetime.now(UTC), doing="", ready=True)
    async with http_client() as http, asyncio.TaskGroup() as tasks:
        database = Database(await connect(url, key, http))
        questions = Questions(database, Ledger(database, "page"), str)

        async def read() -> Truth:
            with (folder / "reads").open("ab") as file:
                file.write(b".")
            return await questions()

        watch = Watch(read, tasks, every_s=EVERY_S, share=0.0)
        page = Page(watch, Registry(folder / "models"), lambda: here, Policy, str)
        await serve(page.app("127.0.0.1"), StatusSettings(port=port))


def asked(port: int, number: int, requests: int, pid: int, folder: Path) -> float:
    """Ask, print a table, and return by how many MB the process grew."""
    process, took = psutil.Process(pid), defaultdict[str, list[tuple[float, int]]](list)
    sizes: list[float] = []
    print("| requests | reads of the database | RSS, MB | files | threads |\n|---|---|---|---|---|")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as http:
        for done in range(1, requests + 1):
            place = PLACES[done % len(PLACES)].format(number)
            began = time.monotonic()
            answer = http.get(place)
            took[place].append((time.monotonic() - began, len(answer.content)))
            assert answer.status_code == 200, (place, answer.text)
            if done % (requests // 5) == 0:
                sizes.append(process.memory_info().rss / 1e6)
                row = (
                    done,
                    (folder / "reads").stat().st_size,
                    f"{sizes[-1]:.1f}",
                    process.num_fds(),
                    process.num_threads(),
                )
                print("|", " | ".join(map(str, row)), "|", flush=True)
    print()
    for place, answers in took.items():
        seconds, size = sorted(answers)[len(answers) // 2]
        print(f"{place}: {1000 * seconds:.0f} ms in the middle, {size:,} bytes")
    return sizes[-1] - sizes[0]


def main() -> int:
    """Fill, serve, ask, judge."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--requests", type=int, default=2000, help="at least 50")
    arguments.add_argument("--clips", type=int, default=5000)
    arguments.add_argument("--serve", nargs=2, metavar=("FOLDER", "PORT"), help=argparse.SUPPRESS)
    given: Any = arguments.parse_args()
    if given.serve:
        folder, port = given.serve
        asyncio.run(
            served(os.environ["SUPABASE_URL"], os.environ["SUPABASE_SERVICE_ROLE_KEY"], Path(folder), int(port))
        )
        return 0
    print(f"{heading()}; {given.clips:,} clips, {VERSIONS} versions\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="ambara-page-") as name, LocalStack.start() as stack:
        folder, port = Path(name), free_port()
        number = fill(stack.db_url, given.clips, folder / "models")
        env = os.environ | {"SUPABASE_URL": stack.url, "SUPABASE_SERVICE_ROLE_KEY": stack.service_role_key}
        command = [sys.executable, __file__, "--serve", name, str(port)]
        with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as child:
            try:
                _wait_for(port, child)
                grown = asked(port, number, max(50, given.requests), child.pid, folder)
            finally:
                child.kill()
    print(f"\nRSS from the first fifth to the end: {grown:+.1f} MB")
    return 1 if grown >= GROWS_MB else 0


def _wait_for(port: int, child: subprocess.Popen[bytes]) -> None:
    while child.poll() is None:
        try:
            httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)
        except httpx.ConnectError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"the page ended with {child.returncode}")


if __name__ == "__main__":
    sys.exit(main())
