"""`python -m daemon` is `ambara`."""

import ctypes
import os
import resource
import sys
import threading
from contextlib import suppress

_PR_SET_DUMPABLE = 4


def main() -> None:
    _keep_memory_to_itself()
    from daemon.cli import app  # late: the child processes that spawn this module need none of it

    code = app.main()
    if any(thread.daemon for thread in threading.enumerate()):
        # The model is at work. Python ends such a thread in the middle of torch's C++, which aborts the process.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _keep_memory_to_itself() -> None:
    """No core file, and no debugger of another process: there the key stands, and what people said."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # the limit alone is not heard by every handler of core files
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


if __name__ == "__main__":
    main()
