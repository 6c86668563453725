"""A service of a real systemd, in a container booted for it: installed as the documents say, looked at, broken.

Everything goes through `systemctl`, `journalctl` and the commands of the README, as a person would do it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon_process import write_config

from daemon.local.tiny import BASE

ROOT = Path(__file__).parents[2]
ETC = Path("/etc/ambara")
KEY = ETC / "supabase_service_role_key"
ENVIRONMENT = ETC / "environment"
STATE = Path("/var/lib/ambara")
CARRIED = Path("/srv/tiny-whisper")
AUDIO = Path("/srv/runs")
_DROP_INS = Path("/etc/systemd/system/ambara.service.d")
_EDITS = Path("/etc/ambara-edits")
GUARD_S = 180.0
"""Guard: a start imports torch, on machines that are busy with other things."""
USUAL: Mapping[str, Any] = {"drafting": {"sweep_seconds": 2, "lease_seconds": 10}}

_TOOLS = {
    # sudo forgets the environment, but for what it is told to keep. pip takes what was fetched before.
    "sudo": """
kept=
case $1 in --preserve-env=*) name=${1#*=} kept=$name=$(printenv "$name"); shift ;; esac
exec env -i PATH="$PATH" HOME=/root LANG=C.UTF-8 PIP_CONFIG_FILE=/dev/null PIP_NO_INDEX=1 """
    f'PIP_FIND_LINKS="{os.environ.get("PIP_FIND_LINKS", "")}" ${{kept:+"$kept"}} "$@"',
    # The container has no network; what is wanted must be here already.
    "apt": 'shift; for package in "$@"; do dpkg -s "$package" >/dev/null || exit 1; done',
    # A person at the editor: the line that has been thought out stands in a file.
    "sudoedit": f'exec sed -i -f {_EDITS} "$1"',
}


def in_a_container() -> bool:
    """Whether systemd is in charge here, in the container that `boot.sh` booted."""
    return Path("/etc/ambara-test-command").exists() and Path("/proc/1/comm").read_text().strip() == "systemd"


def put_tools() -> None:
    """What the documents' commands name and a container has not."""
    for name, script in _TOOLS.items():
        tool = Path("/usr/local/bin") / name
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)


def lines_of(document: str, heading: str) -> list[str]:
    """The commands of a section's shell blocks, without comments; it ends with the next heading of its kind."""
    text = (ROOT / document).read_text(encoding="utf-8")
    level = heading.partition(" ")[0]
    section = text.partition(f"\n{heading}\n")[2]
    section = re.split(rf"\n#{{1,{len(level)}}} ", section)[0]
    assert section, f"{document} has no section {heading!r}"
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return [
        command for block in blocks for line in block.splitlines() if (command := re.split(r"\s#", line)[0].strip())
    ]


def shell(command: str, *, given: str = "", expect: int | None = 0, cwd: Path = ROOT) -> str:
    """Run one line as a person does. Returns what it printed; `expect`: its exit status, None for any."""
    done = subprocess.run(
        ["/bin/bash", "-c", command], input=given, capture_output=True, text=True, check=False, cwd=cwd, timeout=900
    )
    said = done.stdout + done.stderr
    assert expect is None or done.returncode == expect, f"{command} ended with {done.returncode}:\n{said}"
    return said


def until(condition: Callable[[], Any], what: str, *, guard_s: float = GUARD_S) -> Any:
    """Wait for something to become true, and return it."""
    deadline = time.monotonic() + guard_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {guard_s} s: {what}\n{recent()}"
        time.sleep(0.1)
    return found


def recent() -> str:
    """The end of the journal, for failures."""
    return shell("journalctl -u ambara -n 60 -o cat --no-pager", expect=None)


@dataclass
class Installed:
    """The service `ambara`."""

    url: str
    db_url: str
    key: str
    said: dict[str, str] = field(default_factory=dict)
    """What each line of the installation printed."""

    def given(self, line: str) -> str:
        """What a person pastes."""
        if "/dev/stdin" in line:
            return self.key + "\n"
        return self.db_url + "\n" if line.startswith("read -rs SUPABASE_DB_URL") else ""

    def show(self, name: str) -> str:
        """A property of the unit."""
        return shell(f"systemctl show -P {name} ambara").strip()

    @property
    def pid(self) -> int:
        """The daemon's."""
        return int(self.show("MainPID"))

    def active(self) -> bool:
        """Whether it is ready."""
        return self.show("ActiveState") == "active"

    def settings(self, **sections: Any) -> None:
        """Write the settings anew, as `write_config` does."""
        merged = {**USUAL, **sections, "supabase": {"url": self.url, **sections.get("supabase", {})}}
        merged["model"] = {"base": str(CARRIED), **sections.get("model", {})}
        merged["audio"] = {"run_dirs": {each.name: each for each in AUDIO.glob("*-*")}}
        write_config(ETC, **merged)

    def drop_in(self, **directives: str) -> None:
        """What `systemctl edit` does."""
        _DROP_INS.mkdir(exist_ok=True)
        lines = "".join(f"{name}={value}\n" for name, value in directives.items())
        (_DROP_INS / "test.conf").write_text(f"[Service]\n{lines}")
        shell("systemctl daemon-reload")

    def usual(self) -> None:
        """Settings, key and unit as they were installed, and running."""
        with suppress(FileNotFoundError):
            shutil.rmtree(_DROP_INS)
        before = [path.read_bytes() for path in (ETC / "ambara.toml", KEY)]
        self.settings(log={"format": "auto"})
        KEY.write_text(self.key + "\n")
        after = [path.read_bytes() for path in (ETC / "ambara.toml", KEY)]
        ENVIRONMENT.write_text("")
        shell("systemctl daemon-reload")
        if before != after or not self.active():
            shell("systemctl restart ambara")

    def starting(self) -> str:
        """The line of a start that is under way; empty before and after."""
        said = self.show("StatusText")  # a unit that is dead keeps its last
        return said if said.startswith("starting: ") else ""

    def journal(self, since: str = "") -> list[dict[str, Any]]:
        """What the daemon logged, oldest first: its fields, with the journal's own under ``journal``."""
        after = f"--after-cursor={since!r}" if since else ""
        shell("journalctl --sync")
        found = []
        for line in shell(f"journalctl -u ambara -o json --no-pager {after}").splitlines():
            entry = json.loads(line)
            with suppress(ValueError, TypeError):
                if isinstance(event := json.loads(entry["MESSAGE"]), dict):
                    found.append(event | {"journal": entry})
        return found

    def now(self) -> str:
        """A mark in the journal."""
        shell("journalctl --sync")
        return shell("journalctl -n 0 --show-cursor --no-pager").rpartition("cursor: ")[2].strip()

    def logged(self, event: str, since: str = "", **fields: Any) -> list[dict[str, Any]]:
        """The log lines of an event that hold `fields`."""
        return [e for e in self.journal(since) if e.get("event") == event and fields.items() <= e.items()]


def install(stack: Any) -> Installed:
    """Carry out the README's section, line by line, with a key, an address and a model put in."""
    shutil.copytree(BASE, CARRIED)
    edits = {"url": stack.url, "base": CARRIED, "language": "mg"}
    _EDITS.write_text("".join(f's|^# {name} = .*|{name} = "{value}"|\n' for name, value in edits.items()))
    service = Installed(stack.url, stack.db_url, stack.service_role_key)
    for line in lines_of("README.md", "## Install as a service"):
        print(f"$ {line}")  # noqa: T201 - shown when an installation fails
        command = line.replace(" -f ", " ")  # it would follow for ever
        service.said[line] = shell(command, given=service.given(line))
    return service
