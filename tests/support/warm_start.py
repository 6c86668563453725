"""Daemons that start in a second: a process that has imported everything splits off one after the other.

A start takes seconds of a processor, nearly all of it for importing PyTorch, during which a daemon holds nothing that
could be lost. Here that is done once. What is split off is a process like any other: its own number, memory, signals,
files and threads, and it begins with the daemon's `main`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from daemon_process import DaemonProcess, Project, environment, write_config
from scene import PROMPT, RUNS, Scene

PROGRAM = Path(__file__).with_name("warm_nest.py")


class Nest:
    """The process that has everything ready. Close it when the last daemon has ended: those that run are killed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        surroundings = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(PROGRAM)],
            env=surroundings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._hear() == "ready"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    @contextmanager
    def in_scene(
        self, scene: Scene, name: str, *, ready: bool = True, env: Mapping[str, str] | None = None, **sections: Any
    ) -> Iterator[DaemonProcess]:
        """As `Scene.daemon`; all daemons of a scene have one state directory."""
        surroundings = {"STATE_DIRECTORY": str(scene.folder / "state"), **(env or {})}
        given = settings(scene, **sections)
        with self.daemon(scene, scene.folder / name, ready=ready, env=surroundings, **given) as daemon:
            yield daemon

    @contextmanager
    def daemon(
        self,
        project: Project,
        folder: Path,
        *,
        ready: bool = True,
        env: Mapping[str, str] | None = None,
        **sections: Any,
    ) -> Iterator[DaemonProcess]:
        """As `daemon_process`."""
        daemon = self.start(project, folder, env, **sections)
        try:
            if ready:
                daemon.wait_for("ready")
            yield daemon
        finally:
            daemon.kill()

    def start(
        self, project: Project, folder: Path, env: Mapping[str, str] | None = None, **sections: Any
    ) -> DaemonProcess:
        """A daemon that somebody else ends."""
        folder.mkdir(parents=True, exist_ok=True)
        config = write_config(folder, **sections)
        log = folder / "daemon.log"
        log.touch()
        order = {
            "arguments": ["ambara", "--config", str(config), "run"],
            "log": str(log),
            "cwd": str(folder),
            "env": environment(project, folder) | dict(env or {}),
        }
        return DaemonProcess(Hatched(self, int(self.ask(order))), log)  # type: ignore[arg-type]

    def ask(self, order: Mapping[str, Any]) -> Any:
        """One order, one answer."""
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            return self._hear()

    def _hear(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


class Hatched:
    """A process that was split off, with the part of `subprocess.Popen` that a test needs."""

    def __init__(self, nest: Nest, pid: int) -> None:
        self._nest = nest
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        if self.returncode is None:
            self.returncode = self._nest.ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises `subprocess.TimeoutExpired`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("daemon", timeout or 0)
            time.sleep(0.02)
        return code

    def send_signal(self, number: int) -> None:
        """Nothing happens to one that has ended: until it is asked for, its number is not used again."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def settings(scene: Scene, **sections: Any) -> dict[str, Any]:
    """The settings that `Scene.daemon` gives to a daemon."""
    return {"drafting": PROMPT, "audio": {"run_dirs": dict.fromkeys(RUNS, scene.folder / "run")}, **sections}
