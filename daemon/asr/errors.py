"""What can be wrong with a model, said in one plain sentence; and what is wrong with the machine instead."""

from __future__ import annotations

import errno
import re

_NO_ROOM = ("out of memory", "can't allocate memory", "cannot allocate memory", "cublas_status_alloc_failed")
_FALLEN = ("cuda failed with error", "cuda error", "cublas failed with status", "cudnn failed with status")
"""CTranslate2's words, and PyTorch's before it had an AcceleratorError."""
_RUSTY = re.compile(r"\(os error (\d+)\)")
"""How libraries in Rust tell of the system's errors."""
_OF_THE_SYSTEM = frozenset(
    {errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE}
)


class ModelError(Exception):
    """The model cannot serve as asked; the message is one sentence for a person, with the remedy."""


class HubAwayError(ModelError):
    """The model hub does not answer, or there is no room for what it sends: later it may be otherwise."""


class DeviceAwayError(ModelError):
    """The device that was asked for is not there. A graphics card may come after the daemon, when a machine boots."""


def out_of_memory(error: BaseException) -> bool:
    """Whether the device, or the CPU's allocator, had no room."""
    if _kinds(error) & {"MemoryError", "OutOfMemoryError"} or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in message for sign in _NO_ROOM)


def of_the_machine(error: BaseException) -> bool:
    """Whether the machine is to blame, whatever model it works with: its memory, its disk, a device that fell off."""
    message = str(error).lower()
    fallen = isinstance(error, RuntimeError) and any(sign in message for sign in _FALLEN)
    rusty = _RUSTY.search(message)
    number = int(rusty[1]) if rusty else getattr(error, "errno", None)
    return out_of_memory(error) or fallen or "AcceleratorError" in _kinds(error) or number in _OF_THE_SYSTEM


def _kinds(error: BaseException) -> set[str]:
    """Names of what an error is: PyTorch's own kinds are told without importing it."""
    return {kind.__name__ for kind in type(error).__mro__}
