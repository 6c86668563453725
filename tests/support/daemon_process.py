"""The daemon as systemd would run it: a process of its own, with a log to read and signals to send."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from daemon.local.process import Nursery
from daemon.local.tiny import BASE

READY_S = 150.0
"""Guard: a start imports torch, on machines that are busy with other things."""
ENDS_S = 20.0
"""Guard: how long a clean end may take."""

Line = dict[str, Any]
Sections = Mapping[str, Mapping[str, Any]]


class Project(Protocol):
    """What a daemon needs to know of a Supabase."""

    @property
    def url(self) -> str:
        """The project's address."""

    @property
    def service_role_key(self) -> str:
        """Its key."""


class DaemonProcess:
    """A running `ambara run`."""

    def __init__(self, child: subprocess.Popen[bytes], log: Path) -> None:
        self.child = child
        self._log = log

    @property
    def folder(self) -> Path:
        """Its settings, its log, and its state unless that is said to be elsewhere."""
        return self._log.parent

    @property
    def output(self) -> str:
        """Everything that it wrote, to either stream."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.child.poll() is None

    def said(self, event: str, **fields: Any) -> list[Line]:
        """The log lines of an event that hold `fields`."""
        found = []
        for text in self.output.splitlines():
            try:
                line = json.loads(text)
            except ValueError:  # not ours, or half written
                continue
            if isinstance(line, dict) and line.get("event") == event and fields.items() <= line.items():
                found.append(line)
        return found

    def wait_for(self, event: str, *, times: int = 1, guard_s: float = READY_S, never: str = "", **fields: Any) -> Line:
        """Wait until an event was logged so many times, and `never` not once. Returns the last."""
        deadline = time.monotonic() + guard_s
        while len(found := self.said(event, **fields)) < times:
            assert not (never and self.said(never)), self.output
            assert self.running, f"the daemon ended with {self.child.returncode}:\n{self.output}"
            assert time.monotonic() < deadline, f"no {event!r} within {guard_s} s:\n{self.output}"
            time.sleep(0.05)
        return found[-1]

    def pause(self) -> None:
        """Let it stand still."""
        self.child.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self.child.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """Ask it to end, and wait. Returns the exit code."""
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(ENDS_S)

    def kill(self) -> None:
        """End it as the OOM killer does."""
        self.child.kill()
        self.child.wait()


@contextmanager
def daemon_process(
    project: Project, folder: Path, *, ready: bool = True, env: Mapping[str, str] | None = None, **sections: Any
) -> Iterator[DaemonProcess]:
    """Start a daemon with the carried model, and wait until it is ready. `sections`: of the configuration file.

    `folder` takes its configuration, its state and its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = write_config(folder, **sections)
    nursery = Nursery()
    log = folder / "daemon.log"
    command = [sys.executable, "-m", "daemon", "--config", str(config), "run"]
    surroundings = environment(project, folder) | dict(env or {})
    daemon = DaemonProcess(nursery.spawn(command, log=log, env=surroundings, cwd=folder), log)
    try:
        if ready:
            daemon.wait_for("ready")
        yield daemon
    finally:
        daemon.kill()
        nursery.close()


def environment(project: Project, folder: Path) -> dict[str, str]:
    """What a command of ours finds around it: the project, a state directory, one thread for the model."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("SUPABASE_", "AMBARA_"))}
    return bare | {
        "SUPABASE_URL": project.url,
        "SUPABASE_SERVICE_ROLE_KEY": project.service_role_key,
        "STATE_DIRECTORY": str(folder / "state"),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "200",
    }


def write_config(folder: Path, **sections: Any) -> Path:
    """`folder`/ambara.toml: the carried model, JSON lines, no training and no page, unless `sections` say otherwise."""
    known: Sections = {
        "model": {"base": str(BASE)},
        "training": {"enabled": False},
        "status": {"enabled": False},
        "log": {"format": "json"},
    }
    merged = {name: {**known.get(name, {}), **sections.get(name, {})} for name in {**known, **sections}}
    lines = [f"[{name}]\n{''.join(_assignment(key, value) for key, value in merged[name].items())}" for name in merged]
    config = folder / "ambara.toml"
    config.write_text("\n".join(lines), encoding="utf-8")
    return config


def ambara(project: Project, folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, with `folder`/ambara.toml where there is one."""
    return subprocess.run(
        [sys.executable, "-m", "daemon", *arguments],
        env=environment(project, folder) | env,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=READY_S,
    )


def _assignment(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{json.dumps(name)} = {json.dumps(item, default=str)}" for name, item in value.items())
        return f"{key} = {{ {inner} }}\n"
    return f"{key} = {json.dumps(value)}\n"
