"""A hole into a running daemon: code that a test sends is run in its main thread, between two steps of its loop.

It comes in as `sitecustomize`, which Python imports by itself, so the daemon's own code is as it is.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from daemon_process import DaemonProcess

GUARD_S = 60.0

_SITE = '''\
import json, os, pathlib, signal, sys


def hear(*_):
    """Run what lies there for this process, and leave its `answer` beside it."""
    order = pathlib.Path(os.environ["INSIDE"]) / f"{os.getpid()}.py"
    scope = {"answer": None}
    exec(compile(order.read_text(), str(order), "exec"), scope)
    order.with_suffix(".tmp").write_text(json.dumps(scope["answer"]))
    order.with_suffix(".tmp").rename(order.with_suffix(".json"))


def note(event, arguments):
    """Write down whom this process wants to speak to over a network."""
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        whom = arguments[1] if event == "socket.connect" else arguments[:2]
        if not isinstance(whom, tuple):
            return
        with open(pathlib.Path(os.environ["INSIDE"]) / "connects", "a") as file:
            file.write(json.dumps([event, repr(whom)]) + "\\n")


if "INSIDE" in os.environ:
    sys.addaudithook(note)
    signal.signal(signal.SIGUSR1, hear)
'''

BLOCK = """
import asyncio, time
asyncio.get_running_loop().call_soon_threadsafe(time.sleep, {seconds})
"""
"""A callback that sleeps."""

HOG = """
import asyncio, time
def hog():
    until = time.monotonic() + {seconds}
    while time.monotonic() < until:
        pass
asyncio.get_running_loop().call_soon_threadsafe(hog)
"""
"""A callback that computes, and holds the interpreter while it does."""

HANG = """
import threading
import daemon.drafter
from daemon.asr.whisper.transcribe import WhisperTranscriber
daemon.drafter.PATIENCE_S = {patience_s}
daemon.drafter.PATIENCE_PER_SECOND = 0.0
WhisperTranscriber.transcribe = lambda *_: threading.Event().wait()
"""
"""The device never answers again; the daemon's patience is shortened."""

WALL = """
import datetime, sys, time, types
import apscheduler.schedulers.base, daemon.clock, daemon.observer
if "wall" not in sys.modules:
    wall = sys.modules["wall"] = types.ModuleType("wall")
    true_time = time.time
    class Shifted(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime.fromtimestamp(true_time() + wall.shift_s, tz)
    for module in (apscheduler.schedulers.base, daemon.clock, daemon.observer):
        module.datetime = Shifted
    time.time = lambda: true_time() + wall.shift_s
sys.modules["wall"].shift_s = {shift_s}
"""
"""The wall clock, as far as the process reads it through Python, is set by so many seconds."""


class Inside:
    """Give `env` to a daemon; then `do` reaches into it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(_SITE, encoding="utf-8")

    @property
    def env(self) -> dict[str, str]:
        """What the daemon has to find in its environment."""
        path = [str(self._folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"PYTHONPATH": os.pathsep.join(path), "INSIDE": str(self._folder)}

    def connects(self) -> list[tuple[str, str]]:
        """What the daemon asked a socket or a name server for since its start, in order: the call, and whom."""
        file = self._folder / "connects"
        return [tuple(json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []

    def do(self, daemon: DaemonProcess, code: str, **values: Any) -> Any:
        """Run `code` with `values` put in, and return what it calls `answer`."""
        order = self._folder / f"{daemon.child.pid}.py"
        answer = order.with_suffix(".json")
        answer.unlink(missing_ok=True)
        order.write_text(code.format(**values) if values else code, encoding="utf-8")
        daemon.child.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + GUARD_S
        while not answer.exists():
            assert daemon.running, f"the daemon ended:\n{daemon.output}"
            assert time.monotonic() < deadline, f"no answer within {GUARD_S} s:\n{daemon.output}"
            time.sleep(0.02)
        return json.loads(answer.read_text(encoding="utf-8"))
