"""A stack that outlives the command that started it: a supervisor in a session of its own, found by its record.

    python -m daemon.local.background FOLDER PORT kept|ephemeral

The supervisor reports on its standard output until it serves; then it listens to signals alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from daemon.errors import AmbaraError, ConfigurationError, TemporaryError
from daemon.local import DEFAULT_PORT
from daemon.local.folder import AlreadyRunning, wipe
from daemon.local.gateway_server import child_environment
from daemon.local.process import Identity
from daemon.local.record import Record, exclusive
from daemon.local.stack import LocalStack, Report

_READY, _ALREADY, _MISTAKE, _FAILED = "ready", "already", "mistake", "failed"
_PATIENCE_S = 60.0
_LOOK_EVERY_S = 0.5
_RETRY_S = 5.0


def up(folder: Path, *, port: int, ephemeral: bool, report: Report) -> tuple[Record, bool]:
    """Start a stack in the background and wait until it serves.

    Returns its record and whether this call started it; a stack that already runs is left as it is, whatever its
    port. Raises ConfigurationError or TemporaryError with the reason in one sentence.
    """
    folder = folder.resolve()
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    with exclusive(folder):  # held by whoever starts it, until it serves
        record = Record.read(folder)
        if record is not None and record.running():
            return record, False
    word, text = _start_supervisor(folder, port=port, ephemeral=ephemeral, report=report)
    if word == _MISTAKE:
        raise ConfigurationError(text)
    record = Record.read(folder)
    if word not in (_READY, _ALREADY) or record is None:
        raise TemporaryError(text or f"The stack ended while it started; see {_log(folder)}.", reason="local-stack")
    return record, word == _READY


def down(folder: Path, *, delete_data: bool = False) -> bool:
    """Stop the stack of `folder` and everything it started, also after a crash; False if there was nothing to stop."""
    folder = folder.resolve()
    if not folder.is_dir():
        return False
    with exclusive(folder):
        record = Record.read(folder)
        if record is not None:
            record.owner.stop(patience_s=_PATIENCE_S)
            record.sweep(folder)
        if delete_data or (record is not None and record.ephemeral):
            wipe(folder)
    return record is not None


def reset(folder: Path, *, port: int | None, report: Report) -> Record:
    """Stop the stack, delete its tables and objects, start it anew: same keys, and `port` None means same port."""
    before = Record.read(folder)
    if port is None:
        port = urlsplit(before.url).port if before else None
    down(folder, delete_data=True)
    return up(folder, port=DEFAULT_PORT if port is None else port, ephemeral=False, report=report)[0]


def _start_supervisor(folder: Path, *, port: int, ephemeral: bool, report: Report) -> tuple[str, str]:
    command = [
        *(sys.executable, "-m", "daemon.local.background"),
        *(str(folder), str(port), "ephemeral" if ephemeral else "kept"),
    ]
    with _log(folder).open("ab") as log:
        supervisor = subprocess.Popen(  # noqa: S603 - our own module
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=folder,
            env=child_environment(),
            start_new_session=True,
        )
    identity = Identity.of(supervisor.pid)
    try:
        assert supervisor.stdout is not None
        with supervisor.stdout as lines:
            for line in lines:
                word, _, text = line.rstrip("\n").partition(" ")
                if word in (_READY, _ALREADY, _MISTAKE, _FAILED):
                    return word, text
                report(text)
    except BaseException:
        if identity is not None:
            identity.stop(patience_s=_PATIENCE_S)
        raise
    return _FAILED, ""


def _supervise(folder: Path, *, port: int, ephemeral: bool) -> None:
    stop = threading.Event()
    starting = True

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        if starting:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            sys.exit(0)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stack = LocalStack.start(folder, port=port, ephemeral=ephemeral, report=lambda line: _say("doing", line))
    except AlreadyRunning as error:
        return _say(_ALREADY, str(error))
    except ConfigurationError as error:
        return _say(_MISTAKE, str(error))
    except AmbaraError as error:
        return _say(_FAILED, str(error))
    with stack:
        starting = False
        _say(_READY, stack.url)
        _let_go_of_stdout()
        while not stop.wait(_LOOK_EVERY_S):
            try:
                stack.ensure()
            except AmbaraError as error:
                _say("doing", str(error))
                stop.wait(_RETRY_S)
    return None


def _say(word: str, text: str) -> None:
    print(word, text, flush=True)  # noqa: T201 - this is how the supervisor answers `up`


def _let_go_of_stdout() -> None:
    """Whatever is printed from now on goes to the log: `up` reads no more."""
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def _log(folder: Path) -> Path:
    return folder / "logs" / "supervisor.log"


if __name__ == "__main__":
    _supervise(Path(sys.argv[1]), port=int(sys.argv[2]), ephemeral=sys.argv[3] == "ephemeral")
