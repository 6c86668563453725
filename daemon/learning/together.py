"""One training in several processes of this machine: they are started as `torchrun` starts them, and end together.

Not by `torchrun`: its agent needs the network to the end, gives a checkpoint 30 s, and when it is asked to stop twice
it waits no longer. This process opens nothing that the job names.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from tempfile import TemporaryDirectory
from typing import Any

from daemon.learning.job import TrainJob

Event = Mapping[str, Any]
"""A line of a child: ``event``, and its facts."""

_LOOK_S = 0.1
"""Between two looks whether somebody wants it to stop."""
_CAUSE_S = 1.0
"""One ends, and the others notice: so long it is waited for who says why."""
_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}


def train_together(job: TrainJob, file: Path, say: Callable[..., None], stop: Callable[[], bool]) -> Event | int:
    """Do the job in `file` in as many processes as it says. What the first tells is told.

    When the memory of one runs out, all are begun anew with what it wants. Returns the last event; or, where there was
    none, the exit status of the process that ended without a word, negative if a signal ended it. None is left then.
    """
    while True:
        last = _once(file, job.processes, say, stop)
        if isinstance(last, int) or "again" not in last:
            return last
        if stop():
            return {"event": "stopped"}
        job = replace(job, settings={**job.settings, **last["again"]})
        job.write(file)


def _once(file: Path, count: int, say: Callable[..., None], stop: Callable[[], bool]) -> Event | int:
    processes: list[_Process] = []
    with TemporaryDirectory(prefix="ambara-", ignore_cleanup_errors=True) as folder:
        try:
            for rank in range(count):
                processes.append(_Process(rank, count, file, Path(folder) / "meeting"))  # noqa: PERF401 - to be ended
            return _attend(processes, say, stop)
        finally:
            for process in processes:
                process.end()


class _Process:
    """One of them."""

    def __init__(self, rank: int, count: int, file: Path, meeting: Path) -> None:
        place = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count}
        usual = {"OMP_NUM_THREADS": max(1, (os.cpu_count() or 1) // count)}
        self._popen = Popen(  # noqa: S603 - this interpreter and this program once more
            [sys.executable, "-P", sys.argv[0], str(file), str(os.getpid()), str(meeting)],
            stdin=DEVNULL,
            stdout=PIPE,
            env={name: str(value) for name, value in {**usual, **os.environ, **_LOOPBACK, **place}.items()},
        )
        assert self._popen.stdout
        self.output = self._popen.stdout
        self.last: Event | None = None
        """Its last word, once it has said it."""
        self.mute = False
        """Whether it will say nothing more."""
        self._half = b""

    def heard(self) -> list[Event]:
        """What it has said meanwhile."""
        chunk = os.read(self.output.fileno(), 1 << 16)
        self.mute = not chunk
        *lines, self._half = (self._half + chunk).split(b"\n")
        events: list[Event] = [json.loads(line) for line in lines]
        self.last = next((event for event in events if event["event"] != "progress"), self.last)
        return events

    @property
    def failed(self) -> bool:
        """Whether the others can end as well."""
        return self.last["event"] == "failed" if self.last else self.mute

    def ask_to_stop(self) -> None:
        self._popen.terminate()

    def status(self) -> int | None:
        """Its exit status; None while it has none."""
        with suppress(TimeoutExpired):
            return self._popen.wait(_CAUSE_S)
        return None

    def end(self) -> None:
        """Kill it if it lives, and reap it."""
        self._popen.kill()
        self._popen.wait()
        self.output.close()


def _attend(processes: Sequence[_Process], say: Callable[..., None], stop: Callable[[], bool]) -> Event | int:
    """Hear them until the first is done, or one has failed."""
    first, asked, until = processes[0], False, float("inf")
    with DefaultSelector() as selector:
        for process in processes:
            selector.register(process.output, EVENT_READ, process)
        while selector.get_map() and time.monotonic() < until:
            for key, _ in selector.select(_LOOK_S):
                process = key.data
                for event in process.heard():
                    if process is first and event["event"] == "progress":
                        say(**event)
                if process.mute:
                    selector.unregister(process.output)
            if first.last and not first.failed:
                return first.last
            if until == float("inf") and any(process.failed for process in processes):
                until = time.monotonic() + _CAUSE_S
            if stop() and not asked:
                first.ask_to_stop()  # the others go by what the first does
                asked = True
    return _cause(processes)


def _cause(processes: Sequence[_Process]) -> Event | int:
    """Why it failed: what one foresaw, or how one ended; else the unforeseen, such as a connection that broke."""
    said = [process.last for process in processes if process.last and process.failed]
    if foreseen := [event for event in said if event["reason"] != "crashed"]:
        return foreseen[0]
    statuses = [process.status() for process in processes if process.mute and not process.last]
    if ended := [status for status in statuses if status]:
        return ended[0]
    return said[0] if said else 1
