"""A learning loop whose state lies on a small disk that is filled at one step after another.

``python training_storm_disk.py ambara.toml DB_URL FOUND``, in a mount namespace of its own; exit status 77: it gets no
disk. Writes a line of JSON into FOUND for each step: what was said when the disk was full, what was live, and what came
of it when there was room again, in the same process.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import training_storm_family as quick
import training_storm_worker as worker
from corrections import add_run, decide

from daemon.asr.transcriber import SAMPLE_RATE
from daemon.audio import AudioReader, BucketAudio
from daemon.config import Settings, load
from daemon.database import Database
from daemon.decode import Decoder
from daemon.errors import AmbaraError, PermanentError
from daemon.learning.ledger import Ledger
from daemon.learning.loop import Loop
from daemon.learning.trainer import Trainer
from daemon.local.speech import wav_bytes
from daemon.supabase_client import connect, http_client
from handlers.commands import Evaluate
from handlers.events import TrainingFinished

BAR = 4
LEFT = 20_000
"""Bytes free where the disk is nearly full: less than two clips."""
STEPS = ("claim", "freeze", "download", "checkpoint", "publish")


class Disk:
    """A small file system."""

    def __init__(self, place: Path, size: str) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self.place = place
        self.ballast = place / "ballast"
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=False).returncode:
            sys.exit(77)

    def fill(self, but: int = 0) -> None:
        quick.fill(self.ballast)
        os.truncate(self.ballast, self.ballast.stat().st_size - but)

    def free(self) -> None:
        self.ballast.unlink(missing_ok=True)

    def used(self) -> int:
        found = os.statvfs(self.place)
        return (found.f_blocks - found.f_bfree) * found.f_frsize - (
            self.ballast.stat().st_size if self.ballast.exists() else 0
        )


class Bench:
    """The loop of one host, its two disks, and a person who corrects."""

    def __init__(self, settings: Settings, client: Any, db: psycopg.Connection[Any]) -> None:
        self.settings = settings
        self.client = client
        self.db = db
        self.state = Disk(settings.state.directory, "3m")
        self.spool = Disk(settings.state.directory.with_name("spool"), "96k")
        self.loop = Loop(settings, Ledger(Database(client), "worker"), lambda: None)
        supabase = settings.supabase
        bucket = BucketAudio(supabase.url, supabase.key.get_secret_value(), spool=self.spool.place)
        self.reader = AudioReader(bucket, Decoder())
        self._run = add_run(db)

    async def correct(self, recording: str = "tape") -> None:
        for _ in range(BAR):
            name = f"clips/{np.random.default_rng().integers(1 << 60)}.wav"
            noise = np.random.default_rng().standard_normal(SAMPLE_RATE // 2).astype(np.float32) * 0.1
            await self.client.storage.from_("clips").upload(
                f"{self._run}/{name}", wav_bytes(noise), {"content-type": "audio/wav"}
            )
            self.db.execute(
                "insert into clips (run_id, file_name, source_file, duration_sec, status, corrected_transcription) "
                "values (%s, %s, %s, 0.5, 'corrected', %s)",
                [self._run, name, recording, f"{name} {name[::-1]}"],
            )

    async def train(self, **arguments: str) -> object:
        training = self.settings.training.model_copy(update={"arguments": {"step_s": 0.01, **arguments}})
        room = self.loop.keeper.need_room
        work = Trainer(self.loop.ledger, self.loop.sources, self.reader.read, training, need_room=room, lease_s=60)
        return await worker.look(self.settings, self.loop, work)

    async def trained(self) -> bool:
        """Look until a run has finished."""
        for _ in range(200):
            if await self.train() == TrainingFinished():
                return True
            await asyncio.sleep(0.1)
        return False

    def last(self) -> dict[str, Any]:
        row = self.db.execute(
            "select jsonb_build_object('status', r.status, 'reason', r.reason, 'slug', r.detail ->> 'reason', "
            "'version', r.version_id) from training_runs r order by id desc limit 1"
        ).fetchone()
        assert row
        return dict(row[0])

    def live(self) -> str:
        """Whether what is live is as it was published, and loads."""
        row = self.db.execute("select id from model_versions where stage = 'live'").fetchone()
        assert row
        try:
            model = self.loop.sources.registry.check(row[0])
        except PermanentError as error:
            return error.reason
        return self.loop.sources.make(self.loop.sources.opened(str(model), None)).fingerprint and "whole"

    async def step(self, name: str) -> dict[str, Any]:
        """One training on a disk that is full at this step, and one when there is room."""
        before = self.state.used()
        await self.correct()
        wishes: dict[str, str] = {}
        if name == "claim":
            self.state.fill()
        elif name == "freeze":
            self.state.fill(LEFT)
        elif name == "download":
            self.spool.fill()
        else:
            wishes = {"fill": str(self.state.ballast), "fill_at": {"publish": "end"}.get(name, name)}
        failed = str(await self.train(**wishes))
        full = {"step": name, "event": failed, **self.last(), "live": self.live(), "grown": self.state.used() - before}
        self.state.free()
        self.spool.free()
        return full | {"again": await self.trained(), "live_again": self.live()}

    async def judge(self) -> dict[str, Any]:
        """A comparison whose evidence finds no room, more often than a candidate is given for faults of its own."""
        judge, candidate = self.loop.judge(), self.last()["version"]
        row = self.db.execute("select id from model_versions where stage = 'live'").fetchone()
        assert row
        live = int(row[0])
        flag = self.loop.sources.registry.folder(candidate) / quick.FILL_WHEN_HEARD
        flag.write_text(str(self.state.ballast))
        said = [await _said(lambda: judge.evaluate(Evaluate(candidate, against=live))) for _ in range(4)]
        full = {"step": "evidence", "said": said, "stage": self._stage(candidate), "live": self.live()}
        flag.unlink()
        self.state.free()
        done = await _said(lambda: judge.evaluate(Evaluate(candidate, against=live)))
        return full | {"again": done == "EvaluationFinished", "live_again": self.live()}

    def _stage(self, version: int) -> str:
        row = self.db.execute("select stage from model_versions where id = %s", [version]).fetchone()
        assert row
        return str(row[0])


async def _said(ask: Callable[[], Any]) -> str:
    try:
        return type(await ask()).__name__
    except AmbaraError as error:
        return error.reason


async def main(config: Path, db_url: str, found: Path) -> None:
    """All steps."""
    worker.prepare()
    settings = load(config, os.environ)
    with psycopg.connect(db_url, autocommit=True) as db:
        decide(db, tape="train", psalm="held_out")
        async with http_client() as http:
            client = await connect(settings.supabase.url, settings.supabase.key.get_secret_value(), http)
            bench = Bench(settings, client, db)
            await bench.correct("psalm")
            await bench.correct()
            assert await bench.trained()
            await bench.loop.ledger.promote(bench.last()["version"], expected=None, reason="to be kept")
            for name in STEPS:
                _tell(found, await bench.step(name))
            _tell(found, await bench.judge())
            await bench.reader.close()


def _tell(path: Path, found: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
