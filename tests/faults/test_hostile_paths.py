"""Names and links that lead out of a run's directory: nothing outside is opened, on disk or in the bucket."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from posixpath import normpath
from urllib.parse import unquote

import pytest
from fault_record import Fault
from hostile_paths import INSIDE, NAMES, RUN, swap, traps

PREFIX = f"/storage/v1/object/clips/{RUN}/"
PROGRAM = Path(__file__).parents[1] / "support" / "hostile_paths.py"
PROJECT = PROGRAM.parents[2]
# A call that returned a descriptor, whose path strace tells behind it.
_OPENED = re.compile(r"\bopen(?:at2?)?(?:\(| resumed>).* = \d+<(.*)>$")
GUARD_S = 600.0


@contextmanager
def storage() -> Iterator[tuple[str, list[str]]]:
    """A Storage that has nothing, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = b'{"statusCode":"404","error":"not_found","message":"Object not found"}'
            self.send_response(400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep still."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


@contextmanager
def swapped(root: Path) -> Iterator[list[int]]:
    """Somebody swaps names under the reader, as fast as a disk lets; the list's length tells how often."""
    times: list[int] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            swap(root)
            times.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield times
    finally:
        stop.set()
        thread.join()


def outside(path: str, folder: Path) -> bool:
    """Whether an opened path is none of the run's. The spool's files have no name."""
    path = path.removesuffix("(deleted)").rstrip('>"')
    if path in (str(folder / "begin"), str(folder / "end"), str(folder / "top")):
        return False
    return not path.startswith((f"{folder}/top/{RUN}", f"{folder}/spool"))


def traced(log: Path, folder: Path) -> list[str]:
    """Paths that were opened between the two marks."""
    inside, paths = False, []
    for line in log.read_text(errors="replace").splitlines():
        if f'"{folder}/begin"' in line or f'"{folder}/end"' in line:
            inside = "begin" in line
        elif inside and (found := _OPENED.search(line)):
            paths.append(found[1])
    return paths


def climbs(path: str) -> bool:
    """Whether a request leaves the clip's prefix, for anyone on the way who decodes, normalises or cleans up."""
    seen = path
    for _ in range(3):
        seen = unquote(seen)
        for reading in (seen, seen.replace("\\", "/"), unicodedata.normalize("NFKC", seen)):
            if not normpath(reading).startswith(PREFIX) or any(c in reading for c in "\0\r\n"):
                return True
    return False


@pytest.mark.fault("F30", "traversal")
def test_nothing_outside_is_opened(fault: Fault, tmp_path: Path) -> None:
    """By a process that reads as the daemon does, watched from outside it."""
    swaps = fault.size(full=8_000, short=1_500)
    root = traps(tmp_path)
    for mark in ("begin", "end"):
        (tmp_path / mark).touch()
    (tmp_path / "spool").mkdir()
    log = tmp_path / "trace"
    tracer = [*("strace", "-f", "-y", "-qq", "-s", "4096"), *("-e", "trace=open,openat,openat2"), *("-o", str(log))]
    strace = shutil.which("strace") is not None and subprocess.run([*tracer, "true"], check=False).returncode == 0
    fault.injected(f"{len(NAMES)} names, and {swaps} reads of a clip that is swapped for links to the outside")
    with storage() as (url, asked), swapped(root) as times:
        command = [*(tracer if strace else []), sys.executable, str(PROGRAM), str(root), url, str(swaps)]
        paths = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
        surroundings = os.environ | {"PYTHONPATH": paths}
        done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False, timeout=GUARD_S)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    if strace:
        opened = traced(log, tmp_path)
        fault.holds("the watch saw the reads", [] if len(opened) > swaps else [len(opened)])
        fault.holds("0 opened outside the root", {path for path in opened if outside(path, tmp_path)})
    fault.observe("watched by strace" if strace else "substitute: no strace here, so an audit hook in the reader")
    chosen = {str(root), str(tmp_path / "spool"), str(tmp_path / "end")}
    loose = [
        (path, tied)
        for path, tied in told["opened"]
        if path not in chosen and (not tied or "/" in path or path in (".", ".."))
    ]
    fault.holds("no path, no link followed", loose)
    answers = dict(zip(NAMES, told["names"], strict=True))
    wrong = {name: answer for name, answer in answers.items() if answer not in ("audio-path", "audio-missing")}
    fault.holds("0 of the names read", wrong.items())
    inside = f"{INSIDE:.1f} s"
    fault.holds("only the clip itself is read", told["races"].keys() - {inside, "audio-path", "audio-missing"})
    fault.holds("the race was one", [] if len(told["races"]) > 1 and inside in told["races"] else [told["races"]])
    fault.holds("0 requests leave the clip's prefix", [path for path in asked if climbs(path)])
    fault.observe(f"{len(times)} swaps; {told['races']}; {len(asked)} requests to the bucket")
