"""sha256 of files, of which the large ones are not read twice for one load."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from hashlib import file_digest
from pathlib import Path

_REMEMBERED_S = 60.0
"""A version's files are hashed to see that they are as published, and again to see which model it is: no more than that
is to be saved. Later a disk may have changed what it holds."""
_SETTLED_S = 2.0
"""What was written more lately is read again: it may be written once more within the same tick of the file's clock."""
_MOST = 64

_known: OrderedDict[tuple[int, ...], tuple[float, str]] = OrderedDict()


def digest(path: Path) -> str:
    """sha256 (hex) of a file. Raises `OSError` where it cannot be read."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        # A file's ctime cannot be set back, whatever happens to its other times.
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        since, found = _known.get(key, (0.0, ""))
        if found and time.monotonic() < since + _REMEMBERED_S:
            return found
        found = file_digest(file, "sha256").hexdigest()
    if time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED_S:
        _known[key] = time.monotonic(), found
        while len(_known) > _MOST:
            _known.popitem(last=False)
    return found
