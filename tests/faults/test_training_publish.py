"""A version's folder is written, and at every single call of the file system the writer is killed or refused, or the
power fails."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import training_storm_power
import training_storm_publish
from fault_record import Fault
from training_storm import ROOT

STRIDE = 7
"""In the short form every so manieth call."""


@pytest.mark.fault("F25", "publish-every-call")
@pytest.mark.parametrize("how", ["kill", "ENOSPC", "EIO"])
def test_the_live_version_is_whole_whatever_becomes_of_the_next(fault: Fault, tmp_path: Path, how: str) -> None:
    stride = fault.size(full=1, short=STRIDE)
    found = _stopped(tmp_path / "models", how, first=fault.random.randint(1, stride), stride=stride)
    stopped, through = found[:-1], found[-1]
    what = "kill -9" if how == "kill" else how
    fault.injected(
        f"{what} at {len(stopped)} of {through['calls']} calls of the file system while a version is written"
    )
    fault.observe("substitute: calls are counted in the interpreter, a write is cut in its middle")
    assert len(stopped) * stride >= 60 - stride
    died = [each for each in stopped if how == "kill" and each["status"] != signal.SIGKILL]
    fault.holds("every call was met", died)
    fault.holds("I5 the live version is whole", [each for each in found if each["after"]["7"] != "whole"])
    fault.holds("I5 any other is whole or refused", [each for each in found if not _told_apart(each)])
    fault.holds("the next publishing succeeds", [each for each in found if each["again"]["8"] != "whole"])
    fault.holds("and nothing is left over", [each for each in found if each["left"] or each["again"]["6"] == "whole"])
    fault.holds("refused in words", [each for each in stopped if how != "kill" and not _understood(each)])


@pytest.mark.fault("F44", "power-cut")
def test_the_live_version_is_whole_whatever_the_disk_has_kept(fault: Fault, tmp_path: Path) -> None:
    """What was not flushed may be lost; what was said to be there for good may not."""
    stride, draws = fault.size(full=1, short=STRIDE), fault.size(full=8, short=4)
    first, seed = fault.random.randint(1, stride), fault.random.randrange(1_000_000)
    found = _run(training_storm_power.__file__, tmp_path / "models", first, stride, draws, seed)
    calls = {each["at"] for each in found}
    fault.injected(f"the power fails at {len(calls)} calls of the file system, each leaving {draws} disks")
    fault.observe("substitute: of what was not flushed a part is taken away, chosen by dice and at its worst")
    assert len(calls) * stride >= 60 - stride
    kept = [each for each in found if each["published"]]
    fault.holds("there were cuts before and after", [] if 0 < len(kept) < len(found) else [len(kept)])
    fault.holds("I5 the live version is whole", [each for each in found if each["after"]["7"] != "whole"])
    fault.holds("I5 what was published stays", [each for each in kept if each["after"]["8"] != "whole"])
    fault.holds("I5 any other is whole or refused", [each for each in found if not _told_apart(each)])
    fault.holds("the next publishing succeeds", [each for each in found if each["again"]["8"] != "whole"])
    fault.holds("and nothing is left over", [each for each in found if each["left"] or each["again"]["6"] == "whole"])


def _stopped(root: Path, how: str, first: int, stride: int) -> list[dict[str, Any]]:
    return _run(training_storm_publish.__file__, root, how, first, stride)


def _run(script: str, *arguments: object) -> list[dict[str, Any]]:
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _told_apart(each: dict[str, Any]) -> bool:
    return all(each["after"][version] in ("whole", "model-missing", "model-torn", "model-changed") for version in "68")


def _understood(each: dict[str, Any]) -> bool:
    """What the callers foresee, their own words or an error of the disk; or it went well, and then it is well."""
    if each["said"] == "nothing":
        return bool(each["after"]["8"] == "whole")
    return each["said"] in ("disk", "disk-full", "OSError")
