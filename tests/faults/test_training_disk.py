"""The disk is full at each step of learning: a stored reason, a live version that loads, and then it goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import training_storm_disk as disk
import training_storm_family as quick
from daemon_process import environment, write_config
from fault_record import Fault
from training_storm import ROOT, SUPPORT
from training_storm_worker import QUICK

SLUGS = {"claim": "disk", "freeze": "disk-full", "download": "spool-unavailable"}
"""Step -> what the run's row says; ``disk-full`` where it is not here."""


@pytest.mark.fault("F25", "disk-full")
def test_a_full_disk_fails_the_run_and_nothing_else(clean_stack: Any, fault: Fault, tmp_path: Path) -> None:
    base = quick.base_model(tmp_path / "base")
    training = QUICK | {"min_new_clips": disk.BAR}
    config = write_config(tmp_path, model={"family": quick.FAMILY, "base": str(base)}, training=training)
    told = tmp_path / "told"
    paths = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", ""), str(ROOT)])
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, disk.__file__, str(config), clean_stack.db_url, str(told)],
        env=environment(clean_stack, tmp_path) | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("needs a mount namespace, to have a small disk")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in told.read_text().splitlines()]
    trainings, judged = found[:-1], found[-1]
    fault.injected(f"a tmpfs of 3 MiB that is full at {', '.join(each['step'] for each in found)}")
    fault.observe("substitute: the trainer learns in a moment; a real one's checkpoints are in tests/asr")
    assert [each["step"] for each in trainings] == list(disk.STEPS)
    fault.holds(
        "I5 the live version loads", [each for each in found if {each["live"], each["live_again"]} != {"whole"}]
    )
    fault.holds("run failed with a reason", [each for each in trainings if not _explained(each)])
    fault.holds("a full disk turns no candidate down", [] if judged["stage"] == "candidate" else [judged])
    fault.holds("evidence waits", [] if set(judged["said"]) <= {"disk", "disk-full"} else [judged])
    fault.holds("what failed takes no room", [each for each in trainings if each["grown"] > disk.LEFT])
    fault.holds("it goes on when there is room, without a restart", [each for each in found if not each["again"]])


def _explained(each: dict[str, Any]) -> bool:
    return each["status"] == "failed" and bool(each["reason"]) and each["slug"] == SLUGS.get(each["step"], "disk-full")
