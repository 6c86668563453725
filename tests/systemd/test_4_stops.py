"""`systemctl stop` comes back in time, whatever is under way, and the next start goes on from there.

In time: when systemd has to kill, it says so in `Result`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from booted import AUDIO, STATE, Installed, shell, until
from booted_work import drafted, new_clips
from corrections import corrected_tapes, spoken_clinic
from witness import Database, claimed, scalar

QUICK = {
    "enabled": True,
    "min_new_clips": 20,
    "batch_size": 8,
    "gradient_accumulation": 1,
    "learning_rate": 1e-3,
    "spec_augment": False,
    "held_out_share": 0.3,
}


def test_while_it_drafts(service: Installed, rows: Database) -> None:
    clips = new_clips(rows, 500)
    until(lambda: drafted(rows) > 20, "some drafts")
    began = time.monotonic()
    shell("systemctl stop ambara")
    print(f"stopped in {time.monotonic() - began:.1f} s")  # noqa: T201 - for -s
    assert (service.show("Result"), service.show("ExecMainStatus")) == ("success", "0")
    assert claimed(rows) == 0, "what it had claimed is given back"
    assert drafted(rows) < len(clips), "it was in the middle"
    shell("systemctl start ambara")
    until(lambda: drafted(rows) == len(clips), "every clip drafted", guard_s=600)


def test_while_it_starts(service: Installed) -> None:
    shell("systemctl stop ambara")
    shell("systemctl start --no-block ambara")
    until(service.starting, "a word while it starts")
    shell("systemctl stop ambara")
    assert (service.show("Result"), service.show("ExecMainStatus")) == ("success", "0")


@pytest.fixture
def trains(service: Installed, rows: Database) -> Callable[..., int]:
    """A service in the middle of a training. Gives the trainer's process id."""

    def begin(**arguments: int) -> int:
        corrected_tapes(rows, AUDIO, spoken_clinic())
        shell(f"chmod -R a+rX {AUDIO}")
        service.settings(training={**QUICK, "arguments": {"max_steps": 150, **arguments}})
        shell("systemctl restart ambara")
        until(lambda: re.search(r"training v\d+ [1-9]", service.show("StatusText")), "some steps", guard_s=600)
        return int(until(lambda: _trainer(service), "a trainer"))

    return begin


def test_while_it_trains(service: Installed, rows: Database, trains: Callable[..., int]) -> None:
    """The checkpoint is of the very step at which it was stopped, and the next start goes on from it to the end."""
    trainer = trains(save_steps=1000)  # none but the one of the stop
    assert not _checkpoints()
    began = time.monotonic()
    shell("systemctl stop ambara")
    print(f"stopped in {time.monotonic() - began:.1f} s")  # noqa: T201 - for -s
    assert (service.show("Result"), service.show("ExecMainStatus")) == ("success", "0")
    assert not psutil.pid_exists(trainer)
    (checkpoint,) = _checkpoints()
    before = service.now()
    shell("systemctl start ambara")
    (done,) = until(lambda: service.logged("training finished", before), "the run's end", guard_s=600)
    detail = scalar(rows, "select detail from model_versions where id = %s", done["version"])
    assert detail["training"]["resumed_from"] == _step(checkpoint) > 0


def test_the_trainer_ends_with_a_killed_daemon_and_is_taken_up(
    service: Installed, rows: Database, trains: Callable[..., int]
) -> None:
    trainer = trains(save_steps=5)
    until(_checkpoints, "the first checkpoint")
    before = service.now()
    shell(f"kill -9 {service.pid}")
    until(lambda: not psutil.pid_exists(trainer), "the trainer ended as well")
    (done,) = until(lambda: service.logged("training finished", before), "the run's end", guard_s=600)
    detail = scalar(rows, "select detail from model_versions where id = %s", done["version"])
    assert detail["training"]["resumed_from"] > 0


def _checkpoints() -> list[Path]:
    """Those that are whole: their manifest is written last."""
    return [each.parent for each in (STATE / "models").glob("*/checkpoints/checkpoint-*/manifest.json")]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("-")[2])


def _trainer(service: Installed) -> int | None:
    for child in psutil.Process(service.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if any("learning.child" in word for word in child.cmdline()):
                return child.pid
    return None
