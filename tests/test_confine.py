"""What a child gives up, in real processes."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LINUX = sys.platform == "linux"
OTHER = 1
"""A user that the password file has; not the one that namespaces show for those they do not know."""
LOOK = """
import ctypes, encodings.idna, json, os, pwd, resource, socket, sys
from pathlib import Path
from daemon.learning.confine import confine

def reach(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True

if user := int(sys.argv[2]):  # as if it had been started by that one, who need not be able to read this interpreter
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
before = reach(int(sys.argv[1]))
network = confine(os.getppid())
print(json.dumps({
    "before": before, "network": network, "after": reach(int(sys.argv[1])),
    "user": [os.getuid(), os.geteuid(), os.getgid()], "name": pwd.getpwuid(os.getuid()).pw_name,
    "offline": [os.environ.get(f"{library}_OFFLINE") for library in ("HF_HUB", "TRANSFORMERS", "HF_DATASETS")],
    "nice": os.nice(0), "core": resource.getrlimit(resource.RLIMIT_CORE)[1], "umask": os.umask(0),
    "oom": int(Path("/proc/self/oom_score_adj").read_text()) if Path("/proc").is_dir() else None,
}))
"""
NAMESPACES = """
import ctypes, os, sys
os.setuid(int(sys.argv[1]) or os.getuid())
sys.exit(ctypes.CDLL(None).unshare(0x50000000) != 0)
"""


def may(user: int = 0) -> bool:
    """Whether the system lets a user leave its own user and network namespaces."""
    return LINUX and subprocess.run([sys.executable, "-c", NAMESPACES, str(user)], check=False).returncode == 0


def look(user: int = 0, before: str = "") -> dict[str, Any]:
    """What a process sees before and after it was confined."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", before + LOOK, str(server.getsockname()[1]), str(user)]
        answer = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=60)
    seen: dict[str, Any] = json.loads(answer.stdout)
    assert seen["before"], "the port was not there to begin with"
    return seen


def test_it_keeps_its_name_and_loses_everything_else() -> None:
    seen = look()
    assert seen["offline"] == ["1", "1", "1"]
    assert seen["user"] == [os.getuid(), os.geteuid(), os.getgid()]
    assert seen["nice"] == os.nice(0) + 10
    assert seen["core"] == 0
    assert seen["umask"] == 0o077
    if LINUX:
        assert seen["oom"] == 500
    assert seen["network"] in ("none", "offline-only")
    assert seen["after"] == (seen["network"] == "offline-only"), "it says what it has"


@pytest.mark.skipif(not may(), reason="this system gives no namespaces")
def test_a_port_that_listens_is_out_of_reach() -> None:
    assert look()["network"] == "none"


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes somebody else")
def test_without_root_it_takes_a_user_namespace_and_is_still_the_same_user() -> None:
    if not may(OTHER):
        pytest.skip("this system gives its users no namespaces")
    seen = look(OTHER)
    assert (seen["network"], seen["after"]) == ("none", False)
    assert seen["user"] == [OTHER, OTHER, OTHER]
    assert seen["name"] == pwd.getpwuid(OTHER).pw_name


def test_where_the_system_forbids_it_the_libraries_are_offline_all_the_same() -> None:
    """A process with no right to a namespace: the limits of a container, or of the service manager."""
    seen = look(before="import daemon.learning.confine as c; c._NEW_NETWORK = c._NEW_USER = 1\n")  # no such namespace
    assert (seen["network"], seen["after"]) == ("offline-only", True)
    assert seen["offline"] == ["1", "1", "1"]
    assert seen["nice"] == os.nice(0) + 10


def test_whose_parent_is_gone_already_does_not_begin() -> None:
    program = """
from daemon.learning.confine import OrphanError, confine
try:
    confine(1 << 22)
except OrphanError:
    print("gone")
"""
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True)
    assert answer.stdout == b"gone\n"


@pytest.mark.skipif(not LINUX, reason="the kernel's doing")
def test_it_ends_with_its_parent_however_that_ends() -> None:
    """After the namespaces were left, which is where the bond could be lost. A grandchild of this test tells by EOF."""
    child = """
import os
from daemon.learning.confine import confine
confine(os.getppid())
print("bound", flush=True)
input()
"""
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"bound\n"
        os.kill(process.pid, signal.SIGKILL)
        assert process.stdout.read() == b"", "the end comes when the last process that could write is gone"
