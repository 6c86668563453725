"""A real daemon that learns: the whole round, a verdict against a candidate, and ends in the middle of training."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import version_seen
from another_machine import joined
from corrections import WAITING, corrected_tapes, spoken_clinic
from daemon_process import DaemonProcess, ambara, daemon_process
from witness import Database, clip_rows, deserted, scalar, until

from daemon.local.sockets import free_port
from daemon.local.speech import Utterance

SOON = {"sweep_seconds": 1}
QUICK = {
    "enabled": True,
    "min_new_clips": 20,
    "batch_size": 16,
    "gradient_accumulation": 1,
    "learning_rate": 1e-3,
    "spec_augment": False,
    "held_out_share": 0.5,  # three tapes: of two that differ, little is known of a third
}
LEARNED_S = 240.0
"""Guard: a run of the small model takes half a minute of one core."""


@dataclass
class Scene:
    """Six corrected tapes of the clinic and a dozen clips that wait."""

    db: Database
    folder: Path
    run_dirs: dict[str, Path]
    people: dict[str, dict[str, Any]]

    def settings(self, **training: Any) -> dict[str, Any]:
        return {
            "drafting": SOON,
            "audio": {"run_dirs": self.run_dirs},
            "training": QUICK | training,
        }

    def live(self) -> int:
        return int(scalar(self.db, "select id from model_versions where stage = 'live'"))

    def drafted_by(self, version: int) -> int:
        """How many waiting clips show the draft of a version."""
        query = (
            "select count(*) from clips c join draft_state s on s.clip_id = c.id "
            "where c.status = 'pending' and s.version_id = %s and s.text_md5 = md5(c.draft_transcription)"
        )
        return int(scalar(self.db, query, version))

    def forget_log(self) -> None:
        """The next daemon says everything anew."""
        (self.folder / "daemon.log").unlink()

    def untouched(self) -> bool:
        rows = clip_rows(self.db)
        return all(rows[clip] == row for clip, row in self.people.items())


@pytest.fixture(scope="module")
def spoken() -> Sequence[Utterance]:
    return spoken_clinic()


@pytest.fixture
def scene(stack: Any, spoken: Sequence[Utterance], tmp_path: Path) -> Iterator[Scene]:
    stack.ensure()
    stack.truncate()
    with deserted(stack.db_url) as db:
        run_dirs = corrected_tapes(db, tmp_path / "runs", spoken)
        people = {clip: row for clip, row in clip_rows(db).items() if row["status"] == "corrected"}
        yield Scene(db, tmp_path, run_dirs, people)


async def test_a_round_a_restart_and_a_way_back(stack: Any, scene: Scene) -> None:
    """Corrections become a better model that drafts everything pending again; a restart keeps it, a person may not.

    It learns in windows as long as the clips, and serves in them once it has won. The base, which knows whole ones,
    is judged in those and serves in those.
    """
    settings = scene.settings(arguments={"max_steps": 120}, windows="right-sized")
    page = {"status": {"enabled": True, "port": 0}}
    with daemon_process(stack, scene.folder, **settings, **page) as daemon, looking_at(daemon) as http:
        await until(lambda: version_seen.under_way(http), "a training on the page", guard_s=LEARNED_S, pause_s=0.2)
        promoted = daemon.wait_for("promoted", guard_s=LEARNED_S, never="training failed")
        assert promoted["why"].startswith("better: word error rate")
        base, better = promoted["over"], promoted["version"]
        await until(lambda: scene.drafted_by(better) == WAITING, "drafted again by the better model")
        assert scene.live() == better
        names_what_it_is_about(daemon, int(scalar(scene.db, "select id from training_runs")), base, better)
        assert [row[0] for row in scene.db.execute("select status from training_runs").fetchall()] == ["finished"]
        assert scalar(scene.db, "select count(*) from drafts where version_id = %s", base) == WAITING
        assert scene.untouched()
        sides = dict(scene.db.execute("select recording, side from training_recordings").fetchall())
        assert set(sides.values()) == {"train", "held-out"}
        trained_on = {
            path.stem for path in (scene.folder / "state" / "models" / f"{better:04}" / "data" / "train").rglob("*.wav")
        }
        held_out = {clip for clip, row in scene.people.items() if sides[row["source_file"]] == "held-out"}
        assert trained_on == set(scene.people) - held_out
        await until(lambda: not version_seen.unlike_the_database(http, scene.db), "the same figures", pause_s=1.0)
        evidence = json.loads((scene.folder / "state" / "models" / f"{better:04}" / "evidence.json").read_text())
        assert {clip["clip_id"] for clip in evidence["clips"]} == held_out
        windows = {name: model["windows"] for name, model in evidence["models"].items()}
        assert windows == {"live": "3 s", "candidate": "1 to 3 s"}
        assert [line["windows"] for line in daemon.said("model ready")] == ["3 s"]
        assert [line["windows"] for line in daemon.said("model swapped")] == ["1 to 3 s"]
        version_seen.is_what_was_judged(http, better, evidence, promoted["why"])
        assert daemon.stop() == 0

    scene.forget_log()
    with daemon_process(stack, scene.folder, **settings) as daemon:
        assert daemon.said("model ready", version=better)
        status = ambara(stack, scene.folder, "models", "rollback")
        assert status.returncode == 0, status.stderr
        daemon.wait_for("model swapped", version=base)
        await until(lambda: scene.drafted_by(base) == WAITING, "drafted again by the model that came back")
        assert scene.untouched()
        # What was turned down stays down, and what was counted once does not count again.
        assert scalar(scene.db, "select stage from model_versions where id = %s", better) == "rejected"
        assert scalar(scene.db, "select count(*) from training_runs") == 1
        assert daemon.stop() == 0


@contextmanager
def looking_at(daemon: DaemonProcess) -> Iterator[httpx.Client]:
    """Its page."""
    url = daemon.wait_for("page")["url"]
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
        yield http


def names_what_it_is_about(daemon: DaemonProcess, run: int, base: int, better: int) -> None:
    """Each line bears its worker, what a round has started the round's number, and the rest what it is about."""
    daemon.wait_for("drafted", version=better)
    lines = [json.loads(line) for line in daemon.output.splitlines() if line.startswith("{")]
    lines = [line for line in lines if line["logger"].startswith("daemon.")]
    assert [line for line in lines if "worker" not in line] == []
    assert len({line["worker"] for line in lines}) == 1
    about = {line["event"]: line for line in lines}
    assert about["training begins"]["run"] == about["training finished"]["run"] == run
    versions = {"training begins": better, "training finished": better, "compared": better, "promoted": better}
    assert {event: about[event]["version"] for event in versions} == versions
    assert {line["version"] for line in daemon.said("drafted")} == {base, better}
    rounds = [about[event]["round"] for event in ("training begins", "compared", "promoted")]
    assert rounds == sorted(set(rounds))
    assert all("round" in line for line in daemon.said("drafted"))
    assert not any("run" in line for line in daemon.said("drafted")), "a run is a training"


async def test_a_candidate_that_is_no_better_is_turned_down(stack: Any, scene: Scene) -> None:
    """Two steps so small that nothing is learned: the judge says so, and the live model drafts on."""
    settings = scene.settings(arguments={"max_steps": 2}, learning_rate=1e-9)
    with daemon_process(stack, scene.folder, **settings) as daemon:
        rejected = daemon.wait_for("rejected", guard_s=LEARNED_S, never="training failed")
        assert "not better" in rejected["why"] or "same weights" in rejected["why"]
        await until(lambda: scene.drafted_by(scene.live()) == WAITING, "drafted by the base")
        assert scene.live() != rejected["version"]
        reason = scalar(scene.db, "select reason from model_versions where id = %s", rejected["version"])
        assert reason == rejected["why"]
        assert scene.untouched()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_an_end_in_the_middle_of_training(stack: Any, scene: Scene, number: int) -> None:
    """The child ends with the daemon, and the next daemon goes on with the same run: once, and from its checkpoint."""
    settings = scene.settings(arguments={"max_steps": 150, "save_steps": 10})
    step = "select coalesce(max((detail ->> 'step')::int), 0) from training_runs where detail ->> 'phase' = 'training'"
    with daemon_process(stack, scene.folder, **settings) as daemon:
        await until(lambda: scalar(scene.db, step) >= 20, "some steps trained", guard_s=LEARNED_S)
        children = _children(daemon)
        assert children
        if number == signal.SIGTERM:
            daemon.child.send_signal(signal.SIGTERM)
            assert daemon.child.wait(90) == 0
            assert scalar(scene.db, "select lease_until is null from training_runs")
        else:
            os.kill(daemon.child.pid, signal.SIGKILL)
            daemon.child.wait(30)
            scene.db.execute("update training_runs set lease_until = now()")  # or a minute and a half later
        psutil.wait_procs(children, timeout=90)
        assert not any(child.is_running() for child in children)

    scene.forget_log()
    with daemon_process(stack, scene.folder, **settings) as daemon:
        finished = daemon.wait_for("training finished", guard_s=LEARNED_S, never="training failed")
        assert scalar(scene.db, "select count(*) from training_runs") == 1
        assert scalar(scene.db, "select count(*) from model_versions where kind = 'trained'") == 1
        detail = scalar(scene.db, "select detail from model_versions where id = %s", finished["version"])
        assert detail["training"]["resumed_from"] >= 10
        assert detail["training"]["steps"] == 150
        assert scene.untouched()


async def test_a_version_made_on_two_machines(stack: Any, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon waits for the other, and goes on where it was when that one has left and come back."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    place = {"nodes": 2, "rendezvous": f"127.0.0.1:{free_port()}"}
    settings = scene.settings(arguments={"max_steps": 60, "save_steps": 2, "eval_steps": 30}, **place)
    phase = "select count(*) from training_runs where detail ->> 'phase' = %s and (detail ->> 'step')::int >= %s"
    state = scene.folder / "state"
    with daemon_process(stack, scene.folder, **settings) as daemon:
        await until(
            lambda: scalar(scene.db, phase, "waiting for machines", 1) == 1, "it waits for the other", guard_s=LEARNED_S
        )
        with joined(state) as other:
            # The database hears of steps every five seconds: most may have been trained by then.
            sealed = "models/*/checkpoints/checkpoint-*/manifest.json"
            await until(lambda: bool(list(state.glob(sealed))), "some steps trained", guard_s=LEARNED_S)
            other.terminate()
            assert daemon.wait_for("interrupted")["error"] == "Machine 1 was told to leave."
        with joined(state):
            finished = daemon.wait_for("training finished", guard_s=LEARNED_S, never="training failed")
        detail = scalar(scene.db, "select detail from model_versions where id = %s", finished["version"])
        assert detail["training"]["processes"] == 2
        assert detail["training"]["resumed_from"] >= 2
        assert scalar(scene.db, "select count(*) from training_runs") == 1
        assert scene.untouched()


def _children(daemon: DaemonProcess) -> list[psutil.Process]:
    """The trainer, and whatever it started."""
    return [
        child
        for child in psutil.Process(daemon.child.pid).children(recursive=True)
        if any("learning.child" in word for word in child.cmdline())
    ]
