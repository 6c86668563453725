"""The directory of an export: new or empty before, whole or as it was after."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from daemon.errors import ConfigurationError


@contextmanager
def export_directory(output: Path) -> Iterator[Path]:
    """A hidden directory to fill. At the end of the block what it holds stands in `output`; after an error, nothing.

    Raises `ConfigurationError` unless `output` is new or empty and can be written.
    """
    half = output / f".unfinished-{uuid4().hex[:8]}"
    try:
        new = not output.exists()
        output.mkdir(parents=True, exist_ok=True)
        if any(output.iterdir()):
            raise ConfigurationError(f"{output} is not empty: name a new or an empty directory for the export.")
        half.mkdir()
    except OSError as error:
        raise ConfigurationError(f"No export can be written to {output}: {error.strerror}.") from None
    try:
        yield half
        for name in ("test", "train", "manifest.json"):  # without train/ nobody takes it for a data set
            (half / name).rename(output / name)
        half.rmdir()
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        if new:
            with suppress(OSError):
                output.rmdir()
        raise
