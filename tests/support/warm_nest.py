"""The process from which `warm_start` splits daemons off: it imports what they import, and obeys line by line."""

from __future__ import annotations

import ctypes
import json
import os
import runpy
import signal
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1


def _main() -> None:
    """The nest's own process: import, and then obey."""
    _import_everything()
    _say("ready")
    for line in sys.stdin:
        order = json.loads(line)
        if "poll" in order:
            pid, status = os.waitpid(order["poll"], os.WNOHANG)
            _say(os.waitstatus_to_exitcode(status) if pid else None)
        elif pid := os.fork():
            _say(pid)
        else:
            _become(order)


def _import_everything() -> None:
    from daemon import app  # noqa: F401
    from daemon.asr import families
    from daemon.cli import run  # noqa: F401
    from daemon.local.tiny import BASE

    families.load("whisper", {"model": str(BASE), "language": "mg"}).warm_up()
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "what splits off has one thread"


def _become(order: Mapping[str, Any]) -> None:
    """Be a daemon, to the end."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        log = os.open(order["log"], os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        os.chdir(order["cwd"])
        os.environ.clear()
        os.environ.update(order["env"])
        sys.argv = order["arguments"]
        if folder := os.environ.get("INSIDE"):
            runpy.run_path(f"{folder}/sitecustomize.py")
        runpy.run_module("daemon", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)


def _say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _main()
