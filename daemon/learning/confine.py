"""What a child that trains or judges gives up before it reads its job.

It works on private speech, with libraries that are made to fetch and to report: so it has no network. It must not
outlive the daemon, nor take processor and memory from it. Everything here is of the operating system alone: what an
import has started in another thread would not be confined.
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

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
_SOCKET = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""Machine -> its number for the kernel (linux/audit.h), and the number of the system call socket(2) there."""
_IO_URING_SETUP = 425
"""Through its rings sockets can be made as well, past every filter."""
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_ALLOW, _DENY = 0x7FFF0000, 0x00050000 | errno.EACCES
_SIGNAL_WHEN_PARENT_ENDS = 1


class OrphanError(Exception):
    """The parent is gone already."""


def confine(parent: int | None) -> str:
    """Confine this process for good. Returns ``none`` if it has no network, else ``offline-only``.

    `parent` is the process with which it ends; None binds it to nobody. Raises `OrphanError` if that one has ended.
    Each of the rest is done as far as the system allows.
    """
    os.umask(0o077)
    os.environ |= OFFLINE
    network = "none" if _leave_network() else "offline-only"
    if parent is not None:
        _end_with(parent)
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold speech
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_bytes(b"500")
    return network


def _leave_network() -> bool:
    """Have the kernel refuse every socket but those to other processes of this machine: seccomp(2).

    It needs no right and no namespace, so it holds in a container and under a service manager's limits, too.
    """
    if sys.platform != "linux" or platform.machine() not in _SOCKET:
        return False
    rules = _refusal(*_SOCKET[platform.machine()])
    program = ctypes.create_string_buffer(rules, len(rules))
    pointer = struct.pack("@HP", len(rules) // 8, ctypes.addressof(program))  # struct sock_fprog
    libc = ctypes.CDLL(None)
    return bool(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0 and libc.prctl(_SET_SECCOMP, _FILTER, pointer) == 0)


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


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that happens.

    Elsewhere than on Linux it ends with its next word, which nobody hears.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SIGNAL_WHEN_PARENT_ENDS, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before it was asked for
        raise OrphanError
