"""Child processes that never outlive their parent, and processes recognised again by more than their number."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from daemon.errors import TemporaryError

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Identity:
    """A process by number and start: a number alone is used again, this pair is not."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The identity of a process that is running now; None if there is none, or it is a zombie."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            return None
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else cls(pid, f"{boot}/{fields[19]}")

    def alive(self) -> bool:
        """Whether exactly this process still runs."""
        return Identity.of(self.pid) == self

    def stop(self, *, patience_s: float, first: signal.Signals = signal.SIGTERM) -> None:
        """Ask with `first`; after `patience_s` seconds kill its whole process group. Returns when it is gone."""
        self._signal(first)
        if not wait_until(lambda: not self.alive(), patience_s):
            self.kill()

    def kill(self) -> None:
        """Kill its process group (or itself, if it leads none) and wait."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(self.pid) == self.pid:
                    os.killpg(self.pid, signal.SIGKILL)
                else:
                    os.kill(self.pid, signal.SIGKILL)
        wait_until(lambda: not self.alive(), 10)

    def _signal(self, number: signal.Signals) -> None:
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Nursery:
    """Starts children that the kernel ends when this process ends, however it ends.

    The kernel's promise is tied to the *thread* that made the child, so one thread that lives as long as the
    nursery makes them all: callers may come from short-lived threads.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nursery")

    def spawn(
        self,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        on_orphaned: signal.Signals = signal.SIGKILL,
    ) -> subprocess.Popen[bytes]:
        """Start `command` in a process group of its own, its output appended to `log`."""

        def start() -> subprocess.Popen[bytes]:
            # `preexec_fn` runs after the change of user, which would have cleared the setting.
            with log.open("ab") as output:
                return subprocess.Popen(  # noqa: S603 - the commands are ours
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=env,
                    cwd=cwd,
                    process_group=0,
                    preexec_fn=_ends_with_parent(on_orphaned),  # noqa: PLW1509 - one prctl call
                    user=user,
                    group=group_of(user),
                    extra_groups=None if user is None else [],
                )

        return self._thread.submit(start).result()

    def close(self) -> None:
        """Give the thread back; children that still run are ended by the kernel."""
        self._thread.shutdown()


def stop_child(child: subprocess.Popen[bytes], *signals: tuple[signal.Signals, float]) -> None:
    """Send each signal in turn and wait so many seconds for it; then kill the whole group."""
    for number, patience_s in signals:
        if child.poll() is None:
            child.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(patience_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def wait_until(condition: Callable[[], bool], timeout_s: float, *, every_s: float = 0.02) -> bool:
    """Ask again and again; False when `timeout_s` seconds have passed in vain."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


def wait_ready(
    child: subprocess.Popen[bytes], name: str, log: Path, ready: Callable[[], bool], *, timeout_s: float
) -> None:
    """Wait until `ready`; TemporaryError with the log's last line if the child ends or is too slow."""
    if wait_until(lambda: child.poll() is not None or ready(), timeout_s) and child.poll() is None:
        return
    happened = "did not become ready" if child.poll() is None else f"ended with {child.returncode}"
    raise TemporaryError(f"{name} {happened}; its log {log} ends with: {last_line(log)}", reason="local-stack")


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "(nothing)")


def group_of(user: str | None) -> int | None:
    """The primary group of `user`."""
    return None if user is None else pwd.getpwnam(user).pw_gid


def _ends_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)

    return ask
