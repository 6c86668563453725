"""What bad input gets: a sentence, a stored reason, and a live model that nobody touched."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corrections import Database, add_corrected, add_run
from supabase import AsyncClient

from daemon.asr.transcriber import SAMPLE_RATE, Waveform
from daemon.audio_source import MissingAudio
from daemon.database import Database as Functions
from daemon.errors import PermanentError, TemporaryError
from daemon.learning.keeper import Keeper
from daemon.learning.ledger import Ledger
from daemon.learning.ports import ChildFailed
from daemon.learning.registry import Registry
from daemon.learning.sides import decide_sides
from daemon.learning.sources import Sources
from daemon.learning.trainer import Trainer
from daemon.local.tiny import BASE
from daemon.sections import ModelSettings, RetentionSettings, TrainingSettings
from handlers.commands import Train
from handlers.events import Event, TrainingFailed
from handlers.policy import Policy
from handlers.snapshot import Learning, Snapshot
from handlers.training import why_not_train

NOW = Train(bar_clips=4, bar_minutes=1000.0)


class Bench:
    """A trainer on the embedded stack. `missing` are the recordings' file names whose audio is gone."""

    def __init__(self, client: AsyncClient, db: Database, folder: Path, base: str = str(BASE)) -> None:
        self.db = db
        self.ledger = Ledger(Functions(client), "worker-1")
        self.registry = Registry(folder / "models")
        self.sources = Sources(self.registry, ModelSettings(base=base, device="cpu"))
        self.missing: set[str] = set()
        self.reading = asyncio.Event()
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.lease_s = 90.0

    async def read(self, _run: str, file_name: str) -> Waveform:
        """A second of noise, another for each clip."""
        self.reading.set()
        await self.may_read.wait()
        if file_name in self.missing:
            raise MissingAudio
        noise = np.random.default_rng(list(file_name.encode())).standard_normal(SAMPLE_RATE)
        return (noise * 0.1).astype(np.float32)

    def trainer(self, **settings: Any) -> Trainer:
        wanted = TrainingSettings(held_out_share=0.3, batch_size=4, **settings)
        room = Keeper(self.ledger, self.sources, RetentionSettings(), lambda: None).need_room
        return Trainer(self.ledger, self.sources, self.read, wanted, need_room=room, lease_s=self.lease_s)

    async def train(self, **settings: Any) -> Event | None:
        return await self.trainer(**settings).train(NOW)

    async def divide(self) -> set[str]:
        """Give recordings their sides. Returns those that are held out."""
        await decide_sides(self.ledger, 0.3)
        found = self.db.execute("select recording from training_recordings where side = 'held-out'")
        return {recording for (recording,) in found.fetchall()}

    async def why(self) -> str | None:
        """What `ambara why` would say of training."""
        training, candidate = await self.ledger.observe()
        learning = Learning(training, candidate, hour=12)
        return why_not_train(Snapshot(live=1, loaded=1, ready=0, learning=learning), Policy())

    def failed_with(self) -> str:
        """The stored reason of the only run, which its version shares."""
        rows = self.db.execute(
            "select r.status, r.reason, v.reason, v.stage from training_runs r join model_versions v "
            "on v.id = r.version_id"
        ).fetchall()
        assert len(rows) == 1
        status, reason, of_version, stage = rows[0]
        assert (status, stage, of_version) == ("failed", "rejected", reason)
        assert self.db.execute("select name from model_versions where stage = 'live'").fetchall() == [("stock",)]
        return str(reason)


@pytest.fixture
def bench(supabase_client: AsyncClient, db: Database, tmp_path: Path) -> Bench:
    db.execute("select ambara_register_model('stock', 'f', '{}', true)")
    return Bench(supabase_client, db, tmp_path)


def correct(db: Database, tapes: int, clips: int = 4) -> list[str]:
    """So many tapes, corrected. Returns the clips' ids."""
    run = add_run(db)
    return [
        clip
        for tape in range(tapes)
        for number in range(clips)
        for clip in add_corrected(
            db, run, recording=f"tape-{tape}.mp3", words=f"teny faha {tape} sy {number} eto an-toerana", seconds=1
        )
    ]


async def test_no_correction_and_one_recording_begin_nothing(bench: Bench) -> None:
    assert await bench.train() is None
    assert "nobody has corrected a clip" in str(await bench.why())
    correct(bench.db, tapes=1, clips=80)
    assert await bench.train() is None
    assert "no held-out recording yet" in str(await bench.why())
    assert bench.db.execute("select count(*) from training_runs").fetchall() == [(0,)]


async def test_a_base_model_that_is_not_there(bench: Bench, supabase_client: AsyncClient, tmp_path: Path) -> None:
    correct(bench.db, tapes=4)
    elsewhere = Bench(supabase_client, bench.db, tmp_path, base=str(tmp_path / "nowhere"))
    assert await elsewhere.train() == TrainingFailed()
    assert "There is no model directory" in bench.failed_with()
    assert "cooling down for 15 min after run" in str(await bench.why())


async def test_no_audio_of_the_held_out_side(bench: Bench) -> None:
    correct(bench.db, tapes=4)
    rows = bench.db.execute("select file_name, source_file from clips").fetchall()
    held_out = await bench.divide()
    bench.missing = {name for name, tape in rows if tape in held_out}
    assert await bench.train() == TrainingFailed()
    assert "No held-out clip is left to judge by" in bench.failed_with()
    assert "audio" in bench.failed_with()


async def test_no_audio_at_all(bench: Bench) -> None:
    correct(bench.db, tapes=4)
    bench.missing = {name for (name,) in bench.db.execute("select file_name from clips").fetchall()}
    assert await bench.train() == TrainingFailed()
    assert "No clip to train on is left" in bench.failed_with()


async def test_a_disk_without_room(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The room is asked for before anything is fetched."""
    correct(bench.db, tapes=4)

    def need_room(_: Path) -> None:
        raise PermanentError("Training takes 3.0 GB here, where 1.0 GB are free: make room.", reason="disk-full")

    monkeypatch.setattr(bench.registry, "need_room", need_room)
    assert await bench.train() == TrainingFailed()
    assert "make room" in bench.failed_with()
    assert not bench.reading.is_set()


async def test_checkpoints_under_other_settings_are_dropped_once_and_training_begins_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person changes the settings while a run waits for its daemon."""
    correct(bench.db, tapes=4)
    seen: list[bool] = []

    async def run_child(_job: Path, log: Path, _heard: Any) -> ChildFailed:
        seen.append((log.parent / "checkpoints").exists())
        (log.parent / "checkpoints").mkdir(exist_ok=True)
        return ChildFailed("other-training", "The checkpoints are of other settings.")

    monkeypatch.setattr("daemon.learning.trainer.run_child", run_child)
    assert await bench.train() == TrainingFailed()
    assert seen == [False, False]
    assert "other settings" in bench.failed_with()


@pytest.mark.parametrize("unknown", ["crashed", "killed", "hung", "out-of-memory"])
async def test_a_run_on_several_machines_is_gone_on_with(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, unknown: str
) -> None:
    """What it has learned is not thrown away because another machine was away; where nobody knows why it ends, that has
    an end, however often it was gone on with for another reason."""
    correct(bench.db, tapes=4)
    reason = "machines"

    async def run_child(_job: Path, log: Path, _heard: Any) -> ChildFailed:
        (log.parent / "checkpoints").mkdir(exist_ok=True)
        return ChildFailed(reason, "Machine 1 was told to leave.")

    monkeypatch.setattr("daemon.learning.trainer.run_child", run_child)
    monkeypatch.setattr("daemon.learning.trainer.PAUSE_S", 0.01)
    trainer = bench.trainer(nodes=2, rendezvous="10.0.0.1:29500")
    for reason in ["machines"] * 6 + [unknown] * (0 if unknown == "out-of-memory" else 4):  # noqa: B007 - it is read
        with pytest.raises(TemporaryError, match="told to leave"):
            await trainer.train(NOW)
        assert (bench.registry.folder(2) / "checkpoints").is_dir()
    reason = unknown
    assert await trainer.train(NOW) == TrainingFailed()
    assert "told to leave" in bench.failed_with()


async def test_a_state_directory_that_cannot_be_written_is_a_reason_and_no_crash(
    bench: Bench, supabase_client: AsyncClient, tmp_path: Path
) -> None:
    correct(bench.db, tapes=4)
    (tmp_path / "file").write_text("")
    elsewhere = Bench(supabase_client, bench.db, tmp_path / "file")
    assert await elsewhere.train() == TrainingFailed()
    assert "look after" in bench.failed_with()


async def test_an_error_of_the_disk_that_nobody_foresaw(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    correct(bench.db, tapes=4)

    def need_room(_: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(bench.registry, "need_room", need_room)
    assert await bench.train() == TrainingFailed()
    assert "look after its disk" in bench.failed_with()


async def test_an_argument_that_the_library_does_not_take(bench: Bench) -> None:
    """From the child, through its protocol, into the row."""
    correct(bench.db, tapes=4)
    assert await bench.train(arguments={"learning_rat": 1.0}) == TrainingFailed()
    assert "learning_rat" in bench.failed_with()


async def test_a_run_that_another_worker_took_over_is_left(bench: Bench) -> None:
    """Its lease ended unseen, as after a long sleep: what this worker still does for it counts for nothing."""
    correct(bench.db, tapes=4)
    bench.may_read.clear()
    bench.lease_s = 3.0
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        training = tasks.create_task(bench.train())
        await bench.reading.wait()
        bench.db.execute("update training_runs set worker = 'worker-2', fence = fence + 1")
    assert training.result() is None
    assert bench.db.execute("select status, worker from training_runs").fetchall() == [("active", "worker-2")]
