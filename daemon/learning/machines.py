"""Several machines that train one version: what they leave for each other on a disk that all of them see.

0007/machines/call.json     the daemon's machine, number 0, wants the others: for what, where, with what software. The
                            file's time changes for as long as that machine is alive
0007/machines/ID-1.here     machine 1 takes part in that attempt
0007/machines/ID-1.json     why the attempt ended there

All else they tell each other through the training's own connections.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from math import inf
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

import psutil

from daemon.learning.durable import write_whole
from daemon.learning.job import TrainJob
from daemon.learning.manifest import read_object

Event = Mapping[str, Any]
"""A line of a child: ``event``, and its facts."""

_FOLDER, _CALL = "machines", "call.json"
_SOFTWARE = ("ambara", "torch", "transformers", "accelerate", "datasets", "numpy")
_SILENT_S = 180.0
"""A machine 0 whose call does not change for so long is gone. A disk that is shared may tell a minute late."""
_LOOK_S = 2.0
_END_S = 10.0
"""So long after a training's end the processes on other machines may take to end by themselves."""


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt at a training, for which other machines are wanted."""

    id: str
    job: str
    """The job's file, as every machine sees it."""
    nodes: int
    rendezvous: str
    """``host:port`` of machine 0."""
    software: Mapping[str, str]
    """Package -> version there."""
    folder: Path
    """Where this was found."""

    @property
    def meeting(self) -> str:
        """Where its processes find each other, and no others: see `ranks.join`."""
        return f"tcp://{self.rendezvous}/{self.id}"

    def beat(self) -> None:
        """Machine 0 is alive."""
        with suppress(OSError):
            os.utime(self.folder / _CALL)

    def take(self, node: int) -> bool:
        """Take part as this machine, once. Whether nobody else has."""
        try:
            os.close(os.open(self.folder / f"{self.id}-{node}.here", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return False
        return True

    def tell(self, node: int, event: Event) -> None:
        """Let machine 0 know why it ended here."""
        with suppress(OSError):  # it notices that the connections are gone
            write_whole(self.folder / f"{self.id}-{node}.json", json.dumps(dict(event)).encode())

    def told(self) -> list[Event]:
        """Why it ended on other machines."""
        files = (self.folder / f"{self.id}-{node}.json" for node in range(1, self.nodes))
        return [event for file in files if (event := read_object(file))]


@contextmanager
def calling(job: TrainJob, file: Path) -> Iterator[Call | None]:
    """In this block other machines are wanted for a job, if it is for several."""
    if job.nodes == 1:
        yield None
        return
    folder = file.parent / _FOLDER
    call = Call(token_hex(8), str(file.absolute()), job.nodes, job.rendezvous, software(), folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        plain = {name: value for name, value in asdict(call).items() if name != "folder"}
        write_whole(folder / _CALL, json.dumps(plain, indent=1).encode())
        yield call
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def calls(state: Path, node: int) -> list[Call]:
    """The attempts for which a daemon with this state directory wants machine `node`, and has it not; newest first."""
    found: list[tuple[float, Call]] = []
    with suppress(OSError):
        for path in state.glob(f"models/*/{_FOLDER}/{_CALL}"):
            with suppress(OSError, TypeError):  # nothing there any more, or of another release
                call = Call(**(read_object(path) or {}), folder=path.parent)
                if not (path.parent / f"{call.id}-{node}.here").exists():
                    found.append((path.stat().st_mtime, call))
    return [call for _, call in sorted(found, key=lambda each: each[0], reverse=True)]


@dataclass(slots=True)
class Life:
    """Whether an attempt goes on, for another machine than number 0."""

    call: Call
    _time: float = 0.0
    """Of the call's file, as it was seen last ..."""
    _changed: float = inf
    """... and when it was seen to change; at the first look, if never."""
    _next: float = 0.0
    _gone: float | None = None

    def is_over(self) -> bool:
        """Whether machine 0 has ended it a while ago, has begun another, or is gone."""
        now = time.monotonic()
        self._changed = min(self._changed, now)
        if now >= self._next:
            self._next = now + _LOOK_S
            self._look(now)
        return now >= self._changed + _SILENT_S or (self._gone is not None and now >= self._gone + _END_S)

    def _look(self, now: float) -> None:
        path = self.call.folder / _CALL
        try:
            changed, found = path.stat().st_mtime, json.loads(path.read_bytes())["id"]
        except FileNotFoundError:
            found = None
        except (OSError, ValueError, KeyError, TypeError):  # the disk is away for a while
            return
        else:
            if changed != self._time:
                self._time, self._changed = changed, now
        if found == self.call.id:
            self._gone = None
        elif self._gone is None:
            self._gone = now


def software() -> dict[str, str]:
    """What has to be the same on all machines: a gradient is added up by all, and a checkpoint read by all."""
    found = {}
    for package in _SOFTWARE:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def towards(rendezvous: str) -> dict[str, str]:
    """Environment by which the processes of this machine use the interface that leads to machine 0.

    gloo takes the one that the host's own name stands for, which on Debian leads nowhere else (127.0.1.1).
    """
    place = urlsplit(f"tcp://{rendezvous}")
    with suppress(OSError, ValueError):  # a name that is none is a ValueError, too
        family, kind, protocol, _, address = socket.getaddrinfo(place.hostname, place.port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)  # sends nothing
            ours = probe.getsockname()[0]
        for name, addresses in psutil.net_if_addrs().items():
            if any(each.address.partition("%")[0] == ours for each in addresses):
                return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}
    return {}
