"""Ends that nobody foresaw: neither a traceback nor a core file shows the key."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from daemon_process import daemon_process
from fault_record import Fault
from hostile_keys import TALKATIVE, Project, another_key, found, in_a_file
from hostile_secrets import leaks

from daemon.local.stack import LocalStack

# In the daemon's own interpreter, before its first line: the sort of error that nobody foresees, key and all.
ACCIDENT = """
import base64, threading, urllib.parse
import daemon.wiring as wiring
real = wiring.Parts._observe
async def observe(self, **wanted):
    snapshot = await real(self, **wanted)
    key = self.feed._settings.key
    shapes = {"apikey": key, "coded": base64.b64encode(b"x" + key.encode()).decode(), "mark": key.rpartition(".")[2],
              "address": urllib.parse.quote(key, safe="")}
    wiring.log.error("an accident is near", **shapes)
    wiring.log.info(repr(shapes))
    try:
        raise KeyError(shapes)
    except KeyError as error:
        error.add_note(f"with {key}")
        raise RuntimeError("nobody foresaw", shapes, self.feed._settings) from error
wiring.Parts._observe = observe
"""


@pytest.mark.fault("I6", "secrets-accident")
@pytest.mark.parametrize("place", ["environment", "file"])
def test_an_accident(fault: Fault, local_stack: LocalStack, tmp_path: Path, place: str) -> None:
    """An error with the key in its text, in its cause, in its notes and in its frames ends the daemon."""
    local_stack.ensure()
    fault.injected(f"an unforeseen error that holds the key in four shapes; tracebacks asked for; key by {place}")
    key = another_key(local_stack, place)
    folder = tmp_path / "daemon"
    folder.mkdir()
    (tmp_path / "sitecustomize.py").write_text(ACCIDENT)
    env = in_a_file(folder, key) if place == "file" else {"SUPABASE_SERVICE_ROLE_KEY": key}
    env |= {"PYTHONPATH": f"{tmp_path}:{':'.join(path for path in sys.path if path)}", "AMBARA_DEBUG": "1"}
    with daemon_process(Project(local_stack.url, key), folder, ready=False, env=env, log=TALKATIVE) as daemon:
        code = daemon.child.wait(120)
    fault.holds("it ended of that", [] if code == 70 and "nobody foresaw" in daemon.output else [code, daemon.output])
    fault.holds("I6 no key", leaks(key, texts={"output": daemon.output}, paths=[folder / "state"]))


HOLDER = (
    "import os, sys, time; key = open(sys.argv[1]).read(); os.chdir(sys.argv[2]); print(flush=True); time.sleep(60)"
)


@pytest.mark.fault("I6", "secrets-core")
def test_a_core_file(fault: Fault, local_stack: LocalStack, tmp_path: Path) -> None:
    """A crash in native code leaves no memory on the disk. Another program, with the key in its memory, does."""
    local_stack.ensure()
    fault.injected("SIGSEGV to a daemon that may write core files of any size")
    key = another_key(local_stack, "core")
    control, folder = tmp_path / "control", tmp_path / "daemon"
    env = in_a_file(folder, key)
    control.mkdir()
    command = [sys.executable, "-c", HOLDER, str(folder / "credential"), str(control)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        _crash(holder.pid)
    cores = leaks(key, paths=[control])
    fault.observe("a core of another program holds the key" if cores else "substitute: cores go elsewhere; limits read")
    with daemon_process(Project(local_stack.url, key), folder, env=env) as daemon:
        soft, hard = resource.prlimit(daemon.child.pid, resource.RLIMIT_CORE)
        fault.holds("no core is allowed", [] if soft == hard == 0 else [soft, hard])
        _crash(daemon.child.pid)
        fault.holds("it crashed", [] if daemon.child.wait(30) == -signal.SIGSEGV else [daemon.child.returncode])
        fault.holds("I6 no key in a core", found(key, daemon, folder))
        fault.holds("no core", [path.name for path in folder.iterdir() if path.name.startswith("core")])


def _crash(pid: int) -> None:
    """As a bug in a library would, where the system lets core files be written."""
    try:
        resource.prlimit(pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except PermissionError:  # not root, and it gave that up for good: as it should be
        pass
    psutil.Process(pid).send_signal(signal.SIGSEGV)
