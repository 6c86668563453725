"""A service manager in a thread, for the part of systemd that a daemon of ``Type=notify`` meets.

It hears READY, STOPPING, WATCHDOG and EXTEND_TIMEOUT_USEC, ends what is silent for too long with SIGABRT (and SIGCONT,
as systemd does, so that one that stands still hears it) and, after a grace, SIGKILL, and starts it again.
"""

from __future__ import annotations

import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from daemon_process import DaemonProcess

LOOK_S = 0.05
_EXTEND = re.compile(r"EXTEND_TIMEOUT_USEC=(\d+)")


class Child(Protocol):
    """What is needed of `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""

    def send_signal(self, number: int) -> None:
        """Send a signal."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The settings of the service, by systemd's names; all but the last in seconds."""

    watchdog_s: float
    restart_s: float = 1.0
    start_timeout_s: float = 150.0
    stop_timeout_s: float = 30.0
    abort_timeout_s: float = 5.0
    restart_prevent_exit_status: int = 78


class Service(DaemonProcess):
    """A daemon that is kept running. `child` is the present process; `log` takes what all of them write."""

    def __init__(self, start: Callable[[Mapping[str, str]], Child], log: Path, unit: Unit) -> None:
        self._start = start
        self._unit = unit
        self._asked_to_end = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = log.with_name("notify")
        address.unlink(missing_ok=True)
        self._socket.bind(str(address))
        self._socket.settimeout(LOOK_S)
        self._env = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": str(round(unit.watchdog_s * 1e6))}
        self._deadline = 0.0
        self.state = "starting"
        self.restarts = 0
        """systemd's NRestarts."""
        self.history: list[tuple[float, str]] = []
        """When (monotonic clock) what happened: started, ready, watchdog, killed, exit N."""
        self._thread = threading.Thread(target=self._run, name="service manager", daemon=True)
        super().__init__(self._spawn(), log)  # type: ignore[arg-type]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._asked_to_end.set()
        self._thread.join()
        self._socket.close()

    @property
    def running(self) -> bool:
        """Whether the unit is active or about to be."""
        return self.state not in {"failed", "ended"}

    def times(self, what: str) -> list[float]:
        """When it happened, each time."""
        return [at for at, happened in self.history if happened == what]

    def _spawn(self) -> Child:
        self.state = "starting"
        self._deadline = time.monotonic() + self._unit.start_timeout_s
        self._note("started")
        return self._start(self._env)

    def _note(self, what: str) -> None:
        self.history.append((time.monotonic(), what))

    def _run(self) -> None:
        while not self._asked_to_end.is_set():
            self._hear()
            code = self.child.poll()
            if code is not None:
                self._ended(code)
            elif time.monotonic() > self._deadline:
                self._late()
            if not self.running:
                return
        self._stop()

    def _hear(self) -> None:
        try:
            message = self._socket.recv(4096).decode()
        except TimeoutError:
            return
        now = time.monotonic()
        lines = message.splitlines()
        if "READY=1" in lines:
            self.state = "active"
            self._deadline = now + self._unit.watchdog_s
            self._note("ready")
        if "STOPPING=1" in lines:
            self.state = "stopping"
            self._deadline = now + self._unit.stop_timeout_s
        if "WATCHDOG=1" in lines and self.state == "active":
            self._deadline = now + self._unit.watchdog_s
        if (asked := _EXTEND.search(message)) and self.state != "active":
            self._deadline = max(self._deadline, now + int(asked[1]) / 1e6)

    def _late(self) -> None:
        """What was to be heard was not: first the signal that leaves a trace, then the one that nothing survives."""
        if self.state == "killing":
            self.child.send_signal(signal.SIGKILL)
            self._note("killed")
            self._deadline = float("inf")
            return
        self._note("watchdog" if self.state == "active" else f"timeout while {self.state}")
        self.state = "killing"
        self.child.send_signal(signal.SIGABRT)
        self.child.send_signal(signal.SIGCONT)
        self._deadline = time.monotonic() + self._unit.abort_timeout_s

    def _ended(self, code: int) -> None:
        self._note(f"exit {code}")
        if code == self._unit.restart_prevent_exit_status:
            self.state = "failed"
            return
        self.state = "waiting"
        if self._asked_to_end.wait(self._unit.restart_s):
            self.state = "ended"
            return
        self.restarts += 1
        self.child = self._spawn()  # type: ignore[assignment]

    def _stop(self) -> None:
        """SIGTERM, and what follows if nothing comes of it."""
        self.state = "stopping"
        self._deadline = time.monotonic() + self._unit.stop_timeout_s
        self.child.send_signal(signal.SIGTERM)
        while (code := self.child.poll()) is None:
            self._hear()
            if time.monotonic() > self._deadline:
                self.child.send_signal(signal.SIGKILL)
                self._note("killed")
                self._deadline = float("inf")
        self._note(f"exit {code}")
        self.state = "ended"


def exits(service: Service) -> list[str]:
    """Every end of a process, in order."""
    return [what for _, what in service.history if what.startswith("exit")]
