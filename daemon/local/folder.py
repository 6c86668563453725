"""The folder of an embedded stack: made, cleared, wiped."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from daemon.errors import ConfigurationError
from daemon.local.postgres import drop_data, has_data
from daemon.local.record import Record


class AlreadyRunning(ConfigurationError):  # noqa: N818 - a state of affairs, for `up` not even an error
    """Another process runs a stack in this folder."""


def wipe(folder: Path) -> None:
    """Delete the data of a stopped stack: tables and objects. Its keys and logs stay."""
    drop_data(folder)
    shutil.rmtree(folder / "lite", ignore_errors=True)


def temporary_folder() -> Path:
    """A new folder that belongs to nobody's checkout."""
    folder = Path(tempfile.mkdtemp(prefix="ambara-")).resolve()
    folder.chmod(0o711)  # the database's user passes through; files with secrets are closed themselves
    return folder


def clear(folder: Path, *, ephemeral: bool) -> None:
    """Sweep up after a stack that ended badly. Raises AlreadyRunning; ConfigurationError where data would be lost."""
    record = Record.read(folder)
    if record is not None and record.running():
        raise AlreadyRunning(f"A stack already runs in {folder}; stop it with: ambara local down --dir {folder}")
    if record is not None:
        record.sweep(folder)
    if record is not None and record.ephemeral:
        wipe(folder)
    if ephemeral and has_data(folder):
        raise ConfigurationError(
            f"The folder {folder} holds data that are to be kept; choose another folder for an ephemeral stack."
        )


def keep_previous_logs(logs: Path) -> None:
    """Set the logs of the last start aside."""
    logs.mkdir(exist_ok=True)
    for name in ("postgres", "lite", "gateway"):
        if (log := logs / f"{name}.log").exists():
            log.replace(logs / f"{name}.log.old")
