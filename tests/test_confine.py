"""What a child gives up, in real processes."""

from __future__ import annotations

import json
import os
import platform
import pwd
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daemon.learning import confine

ROOT = Path(__file__).parents[1]
LINUX = sys.platform == "linux"
FILTERED = LINUX and platform.machine() in confine._SOCKET
OTHER = 1
"""A user that the password file has."""
LOOK = """
import ctypes, encodings.idna, errno, json, os, pwd, resource, socket, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from daemon.learning.confine import confine, leave_network

def reach(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True

def refused(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno]

def ring():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(425, 1, ctypes.create_string_buffer(120)) < 0:
        raise OSError(ctypes.get_errno(), "io_uring")

if user := int(sys.argv[2]):  # as if it had been started by that one, who need not be able to read this interpreter
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
before = reach(int(sys.argv[1]))
with ThreadPoolExecutor(1) as other:
    other.submit(os.getpid).result()  # it is there before
    confine(os.getppid())
    network = leave_network()
    thread = other.submit(reach, int(sys.argv[1])).result()
print(json.dumps({
    "before": before, "network": network, "after": reach(int(sys.argv[1])) or thread,
    "sockets": {
        "tcp": refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)),
        "udp": refused(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)),
        "netlink": refused(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
        "ring": refused(ring),
        "unix": refused(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)),
        "pair": refused(socket.socketpair),
    } if sys.platform == "linux" else {},
    "user": [os.getuid(), os.geteuid(), os.getgid()], "name": pwd.getpwuid(os.getuid()).pw_name,
    "offline": [os.environ.get(f"{library}_OFFLINE") for library in ("HF_HUB", "TRANSFORMERS", "HF_DATASETS")],
    "nice": os.nice(0), "core": resource.getrlimit(resource.RLIMIT_CORE)[1], "umask": os.umask(0),
    "oom": int(Path("/proc/self/oom_score_adj").read_text()) if Path("/proc").is_dir() else None,
}))
"""


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
    assert seen["nice"] == min(19, os.nice(0) + 10)
    assert seen["core"] == 0
    assert seen["umask"] == 0o077
    if LINUX:
        assert seen["oom"] == 500
    assert seen["network"] in ("none", "offline-only")
    assert seen["after"] == (seen["network"] == "offline-only"), "it says what it has"


@pytest.mark.skipif(not FILTERED, reason="the kernel's filter is not known for this machine")
def test_every_way_to_the_network_is_shut() -> None:
    seen = look()
    assert seen["network"] == "none"
    shut = dict.fromkeys(("tcp", "udp", "netlink", "ring"), "EACCES")
    assert seen["sockets"] == {**shut, "unix": None, "pair": None}


@pytest.mark.skipif(not FILTERED or os.geteuid() != 0, reason="becomes somebody else")
def test_without_root_it_has_no_network_either_and_is_still_the_same_user() -> None:
    seen = look(OTHER)
    assert (seen["network"], seen["after"]) == ("none", False)
    assert seen["user"] == [OTHER, OTHER, OTHER]
    assert seen["name"] == pwd.getpwuid(OTHER).pw_name


def test_on_another_machine_the_libraries_are_offline_all_the_same() -> None:
    seen = look(before="import daemon.learning.confine as c; c._SOCKET = {}\n")
    assert (seen["network"], seen["after"]) == ("offline-only", True)
    assert seen["offline"] == ["1", "1", "1"]
    assert seen["nice"] == min(19, os.nice(0) + 10)


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
