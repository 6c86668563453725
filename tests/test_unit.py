"""The unit file: systemd's own judgement of it, and that it says the same as the code."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from daemon.app import CHECKPOINT_S, GOODBYE_S
from daemon.credentials import CREDENTIAL
from daemon.errors import EXIT_CONFIGURATION
from daemon.pulse import START_S

UNIT = Path(__file__).parents[1] / "systemd" / "ambara.service"
MOST_EXPOSED = "15"
"""Of 100, as `systemd-analyze security` counts: 1.5 where its table says so."""
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


def directives() -> dict[str, list[str]]:
    """Directive -> its values, in order."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert ANALYZE
    return subprocess.run([ANALYZE, *arguments], capture_output=True, text=True, check=False, timeout=60)


@needs_systemd
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    program = directives()["ExecStart"][0].split()[0]
    here = tmp_path / UNIT.name  # it also looks whether the program is there
    here.write_text(UNIT.read_text(encoding="utf-8").replace(program, "/bin/true"), encoding="utf-8")
    done = analyze("verify", str(here))
    assert (done.returncode, done.stderr) == (0, "")
    here.write_text(here.read_text(encoding="utf-8") + "\n[Service]\nWatchdogSecs=1\n", encoding="utf-8")
    assert "WatchdogSecs" in analyze("verify", str(here)).stderr, "it would not see a mistake"


@needs_systemd
def test_little_is_exposed(tmp_path: Path) -> None:
    done = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(UNIT))
    assert done.returncode == 0, done.stdout
    bare = tmp_path / "bare.service"
    bare.write_text("[Service]\nExecStart=/bin/true\n", encoding="utf-8")
    assert analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(bare)).returncode != 0


def test_it_says_the_same_as_the_code() -> None:
    found = directives()
    assert found["Type"] == ["notify"]
    assert found["RestartPreventExitStatus"] == [str(EXIT_CONFIGURATION)]
    assert found["LoadCredential"][0].startswith(f"{CREDENTIAL}:/etc/ambara/")
    assert found["ExecStart"] == ["/opt/ambara/current/bin/ambara --config /etc/ambara/ambara.toml run"]
    seconds = {name: int(found[name][0].removesuffix("s")) for name in ("WatchdogSec", "TimeoutStopSec")}
    assert seconds["WatchdogSec"] >= START_S, "a start is heard of at least that often"
    # Beyond a goodbye the daemon asks for time itself.
    assert GOODBYE_S < seconds["TimeoutStopSec"] < CHECKPOINT_S


def test_a_trainer_can_leave_the_network() -> None:
    """By seccomp(2). Several that train together find the loopback by netlink before."""
    found = directives()
    assert "seccomp" in found["SystemCallFilter"][0].split()
    assert "AF_NETLINK" in found["RestrictAddressFamilies"][0].split()


def test_what_would_break_it_stays_off() -> None:
    """It would hide the graphics card, leave a trainer behind, or stay down."""
    found = directives()
    assert not {"PrivateDevices", "ProcSubset", "MemoryDenyWriteExecute", "PrivateNetwork"} & found.keys()
    assert found["KillMode"] == ["mixed"]
    assert found["StartLimitIntervalSec"] == ["0"]
    assert found["OOMPolicy"] == ["continue"]
