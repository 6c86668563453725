"""What a child that trains or judges gives up before it reads its job.

It works on private speech, with libraries that are made to fetch and to report: so it has no network. It must not
outlive the daemon, nor take processor and memory from it. Everything here is of the operating system alone: an import
that starts threads would keep the kernel from giving a user namespace.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
_NEW_NETWORK = 0x40000000
_NEW_USER = 0x10000000
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
        _end_with(parent)  # after the namespaces: a change of credentials would undo it
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold speech
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_bytes(b"500")
    return network


def _leave_network() -> bool:
    """Move to a network namespace with nothing in it, its loopback down."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_NEW_NETWORK) == 0:
        return True
    if libc.unshare(_NEW_USER | _NEW_NETWORK) != 0:
        return False
    # The same numbers inside as outside, so that the user is still who the password file says.
    with suppress(OSError):
        Path("/proc/self/setgroups").write_bytes(b"deny")
        Path("/proc/self/uid_map").write_bytes(f"{user} {user} 1".encode())
        Path("/proc/self/gid_map").write_bytes(f"{group} {group} 1".encode())
    return True


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that happens.

    Elsewhere than on Linux it ends with its next word, which nobody hears.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SIGNAL_WHEN_PARENT_ENDS, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before it was asked for
        raise OrphanError
