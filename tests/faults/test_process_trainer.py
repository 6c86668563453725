"""A daemon that is asked to end while its child trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from daemon_process import DaemonProcess
from fault_record import Fault
from scene import Scene
from warm_start import Nest
from witness import Database, clip_rows, scalar, until

from daemon.local.speech import speak_corpus, wav_bytes

STOPS = (10, 150)
"""Steps after which the daemon is asked to end."""
STEPS = 400
TAPES, CLIPS = 6, 8
STOP_S = 90.0
"""What the daemon asks the service manager for when it stops."""
TRAINED_S = 200.0
QUICK: dict[str, Any] = {
    "enabled": True,
    "min_new_clips": 20,
    "batch_size": 16,
    "gradient_accumulation": 1,
    "spec_augment": False,
    "held_out_share": 0.3,
    "arguments": {"max_steps": STEPS, "save_steps": 1000},
}
"""No checkpoint comes by itself: those that there are were written because the daemon ended."""


@pytest.mark.long
@pytest.mark.fault("F16", "sigterm-training")
async def test_stopped_while_it_trains(fault: Fault, scene: Scene, nest: Nest) -> None:
    fault.injected(f"2 x SIGTERM in a training of {STEPS} steps, after step {STOPS[0]} and {STOPS[1]}; then it ends")
    step = "select coalesce(max((detail ->> 'step')::int), 0) from training_runs where detail ->> 'phase' = 'training'"
    saved = 0
    with psycopg.connect(scene.stack.db_url, autocommit=True) as db:
        run_dirs = _corrected(scene, db)
        people = clip_rows(db)
        settings = {"training": QUICK, "audio": {"run_dirs": run_dirs}}
        for number, stop in enumerate(STOPS):
            with nest.in_scene(scene, f"daemon{number}", **settings) as daemon:
                await until(lambda least=stop: scalar(db, step) >= least, f"step {stop}", guard_s=TRAINED_S)
                children = _trainers(daemon)
                fault.holds("there is a child", [] if children else ["none"])
                with fault.healing():
                    daemon.child.send_signal(15)
                    await scene.until(lambda ended=daemon: not ended.running, STOP_S)
                fault.holds("exit 0", [] if daemon.child.poll() == 0 else [daemon.child.poll()])
                fault.holds("no traceback", [daemon.output[-1500:]] if "Traceback" in daemon.output else [])
                fault.holds("no orphan", [child for child in children if child.is_running()])
                fault.holds(
                    "the run is let go", [] if scalar(db, "select lease_until is null from training_runs") else [1]
                )
                checkpoints = _checkpoints(scene.folder / "state")
                fault.holds("child checkpointed", [] if checkpoints[-1:] > [max(saved, stop - 1)] else [checkpoints])
                saved = checkpoints[-1]
                fault.observe(f"checkpoint of step {saved}")
                scene.silent(daemon)
        with nest.in_scene(scene, "last", **settings) as last:
            finished = last.wait_for("training finished", guard_s=TRAINED_S, never="training failed")
            detail = scalar(db, "select detail from model_versions where id = %s", finished["version"])["training"]
            fault.holds("resumes at the same step", [] if detail["resumed_from"] == saved else [detail, saved])
            fault.holds("to the end", [] if detail["steps"] == STEPS else [detail])
            runs = db.execute("select status, attempts from training_runs").fetchall()
            fault.holds("I3 one run", [] if runs == [("finished", 3)] else runs)
            kept = clip_rows(db)
            fault.holds("I2 people's words", [clip for clip, row in people.items() if kept[clip] != row])
            scene.end(last)


def _corrected(scene: Scene, db: Database) -> dict[str, Path]:
    """Tapes whose clips people have corrected; run id -> directory."""
    spoken = iter(list({each.text: each for each in speak_corpus("B", 3 * TAPES * CLIPS, seed=78)}.values()))
    run_dirs = {}
    for tape in range(TAPES):
        run = str(scalar(db, "insert into runs (label) values (%s) returning id", f"tape {tape}"))
        run_dirs[run] = scene.folder / f"tape-{tape}"
        (run_dirs[run] / "clips").mkdir(parents=True)
        for number in range(CLIPS):
            clip, name = next(spoken), f"clips/clip_{number:05}.wav"
            (run_dirs[run] / name).write_bytes(wav_bytes(clip.audio))
            db.execute(
                "insert into clips (run_id, file_name, source_file, duration_sec, status, corrected_transcription) "
                "values (%s, %s, %s, %s, 'corrected', %s)",
                [run, name, f"clinic {tape}.mp3", clip.seconds, clip.text],
            )
    return run_dirs


def _trainers(daemon: DaemonProcess) -> Sequence[psutil.Process]:
    """The trainer, and whatever it started."""
    return [
        child
        for child in psutil.Process(daemon.child.pid).children(recursive=True)
        if any("learning.child" in word for word in child.cmdline())
    ]


def _checkpoints(state: Path) -> list[int]:
    """The steps of the checkpoints that are whole, rising."""
    whole = state.glob("models/*/checkpoints/checkpoint-*/manifest.json")
    return sorted(int(path.parent.name.rpartition("-")[2]) for path in whole)
