"""What can be seen before anything heavy is loaded, and what the library's refusals mean to a person."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.asr.training import TrainingError
from daemon.errors import ConfigurationError, PermanentError

EXPORT = "`ambara export -l LABEL -o DATA` writes a data set from what people corrected"
OF_THE_MACHINE = frozenset({"disk-full", "out-of-memory", "not-a-number"})
"""Reasons of a `TrainingError` for which the command as such is right."""


@contextmanager
def explained() -> Iterator[None]:
    """Turn a `TrainingError` into an `AmbaraError` with the same sentence."""
    try:
        yield
    except TrainingError as error:
        kind = PermanentError if error.reason in OF_THE_MACHINE else ConfigurationError
        raise kind(str(error), reason=error.reason) from error


def check_data(data: Path) -> None:
    """Raise `ConfigurationError` unless `data` is an audiofolder with something to learn from."""
    from daemon.asr.whisper.dataset import read_rows

    file = data / "train" / "metadata.csv"
    if not file.is_file():
        what = f"{file}" if data.is_dir() else f"directory {data}"
        raise ConfigurationError(f"There is no {what}: {EXPORT}.")
    with explained():
        rows, _ = read_rows(data, "train"), read_rows(data, "test")
    if not rows:
        raise ConfigurationError(f"{file} lists no clip: {EXPORT}.")


def check_output(out: Path, *, resume: bool) -> None:
    """Raise `ConfigurationError` if `out` cannot be written to, or holds what only `resume` may go on with."""
    place = nearest(out)
    if not place.is_dir():
        raise ConfigurationError(f"{place} is a file: name a directory with -o.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigurationError(f"You may not write to {place}: name another directory with -o.")
    if resume:
        return
    model, begun = (out / "model").exists(), any((out / "checkpoints").glob("checkpoint-*"))
    if model or begun:
        what = "a model already" if model else "a training that was not finished"
        raise ConfigurationError(f"{out} holds {what}: name another directory with -o, or go on with --resume.")


def nearest(path: Path) -> Path:
    """The path itself, or the nearest above it that exists."""
    whole = path.absolute()
    return next(each for each in (whole, *whole.parents) if each.exists())
