"""`python -m daemon` is `ambara`."""

import os
import sys
import threading
from contextlib import suppress


def main() -> None:
    from daemon.cli import app  # late: the child processes that spawn this module need none of it

    code = app.main()
    if any(thread.daemon for thread in threading.enumerate()):
        # The model is at work. Python ends such a thread in the middle of torch's C++, which aborts the process.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
