"""What a child that trains or judges gives up before it opens what its job names.

It works on private speech, with libraries that are made to fetch and to report: so it has no network. It must not
outlive the daemon, nor take processor and memory from it. Everything here is of the operating system alone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

OFFLINE_ONLY = "offline-only"
"""The network is there; the libraries are told to leave it alone."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
_SOCKET = {"x86_64": (0xC000003E, 41, 317), "aarch64": (0xC00000B7, 198, 277)}
"""Machine -> its number for the kernel (linux/audit.h), and those of the calls socket(2) and seccomp(2) there."""
_IO_URING_SETUP = 425
"""Through its rings sockets can be made as well, past every filter."""
_NO_NEW_PRIVILEGES, _SET_FILTER, _ALL_THREADS = 38, 1, 1
_ALLOW, _DENY = 0x7FFF0000, 0x00050000 | errno.EACCES
_SIGNAL_WHEN_PARENT_ENDS = 1


class OrphanError(Exception):
    """The parent is gone already."""


def confine(parent: int | None) -> None:
    """Confine this process, and all that it will start, for good; only `leave_network` remains to be done.

    `parent` is the process with which it ends; None binds it to nobody. Raises `OrphanError` if that one has ended.
    Each of the rest is done as far as the system allows.
    """
    os.umask(0o077)
    os.environ |= OFFLINE
    if parent is not None:
        end_with(parent)
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold speech
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_bytes(b"500")


def leave_network() -> str:
    """Have the kernel refuse every socket but those to other processes of this machine, in all threads: seccomp(2).

    It needs no right and no namespace, so it holds in a container and under a service manager's limits, too. A
    connection that is there stays. Returns ``none`` for the network that is left, or ``offline-only`` where the kernel
    does not do it.
    """
    if sys.platform != "linux" or platform.machine() not in _SOCKET:
        return OFFLINE_ONLY
    machine, socket_call, seccomp_call = _SOCKET[platform.machine()]
    rules = _refusal(machine, socket_call)
    program = ctypes.create_string_buffer(rules, len(rules))
    pointer = struct.pack("@HP", len(rules) // 8, ctypes.addressof(program))  # struct sock_fprog
    libc = ctypes.CDLL(None)
    done = libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
    done = done and libc.syscall(seccomp_call, _SET_FILTER, _ALL_THREADS, pointer) == 0
    return "none" if done else OFFLINE_ONLY


def _refusal(machine: int, socket_call: int) -> bytes:
    """The filter, a program for the kernel's packet filter. A rule: what to do, how far to jump if so and if not."""
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    rules = (
        *((load, 0, 0, 4), (equal, 1, 0, machine), (answer, 0, 0, _DENY)),  # calls as another machine makes them
        *((load, 0, 0, 0), (at_least, 5, 0, 1 << 30), (equal, 4, 0, _IO_URING_SETUP), (equal, 0, 2, socket_call)),
        *((load, 0, 0, 16), (equal, 0, 1, socket.AF_UNIX)),  # the first argument
        *((answer, 0, 0, _ALLOW), (answer, 0, 0, _DENY)),
    )
    return b"".join(struct.pack("=HBBI", *rule) for rule in rules)


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that happens.

    Elsewhere than on Linux it ends with its next word, which nobody hears. Raises `OrphanError`.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SIGNAL_WHEN_PARENT_ENDS, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before it was asked for
        raise OrphanError
