"""A daemon beside an embedded Supabase, for the demo and the benchmarks."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from daemon.errors import TemporaryError
from daemon.local.stack import LocalStack

BASE_MODEL = Path(__file__).parent / "tiny" / "base"
"""The small Whisper that this repository carries."""
READY_WITHIN_S = 150.0
GOODBYE_S = 20.0


@asynccontextmanager
async def running_daemon(
    stack: LocalStack,
    folder: Path,
    settings: str = "",
    env: Mapping[str, str] | None = None,
    *,
    base: Path = BASE_MODEL,
) -> AsyncIterator[int]:
    """`ambara run` as a process of its own, ready; its log is `folder`/daemon.log.

    `settings` is TOML: sections beside ``[model]``; `env`: variables beside this process's own; `base`: a model's
    directory, the carried one if none is given. Yields its number.

    Raises `TemporaryError` with the log's last line when it does not become ready.
    """
    config = folder / "ambara.toml"
    config.write_text(f'[model]\nbase = "{base}"\nlanguage = "mg"\n{settings}', encoding="utf-8")
    address = folder / "notify.sock"
    address.unlink(missing_ok=True)  # of the daemon before
    surroundings = {
        **os.environ,
        "SUPABASE_URL": stack.url,
        "SUPABASE_SERVICE_ROLE_KEY": stack.service_role_key,
        "STATE_DIRECTORY": str(folder / "state"),
        "NOTIFY_SOCKET": str(address),
        "HF_HUB_OFFLINE": "1",
        **(env or {}),
    }
    log = folder / "daemon.log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, log.open("wb") as out:
        notify.bind(str(address))
        notify.setblocking(False)
        command = [sys.executable, "-m", "daemon", "--config", str(config), "run"]
        child = subprocess.Popen(command, env=surroundings, stdout=out, stderr=out)  # noqa: ASYNC220, S603 - returns at once; our own words
        try:
            await _ready(notify, child, log)
            yield child.pid
        finally:
            child.terminate()
            try:
                await asyncio.to_thread(child.wait, GOODBYE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def page_of(folder: Path) -> str | None:
    """Where the daemon whose log is `folder`/daemon.log serves its page; None where it does not."""
    found = re.search(r"\burl\W+(http://[\w.:]+)", (folder / "daemon.log").read_text(errors="replace"))
    return found[1] if found else None


async def _ready(notify: socket.socket, child: subprocess.Popen[bytes], log: Path) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + READY_WITHIN_S
    while loop.time() < deadline:
        if child.poll() is not None:
            break
        try:
            async with asyncio.timeout(0.5):
                if b"READY=1" in await loop.sock_recv(notify, 4096):
                    return
        except TimeoutError:
            continue
    raise TemporaryError(f"The daemon did not become ready: {_last_line(log)}")


def _last_line(log: Path) -> str:
    return log.read_text(errors="replace").strip().rpartition("\n")[2] or "it said nothing"
