"""Model versions on this host's disk: one folder each, whole only by the manifest that is written last.

0007/model/           weights in safetensors, configuration, tokenizer
0007/training.json    what it was made of
0007/owner            the run that made it, by the mark that the database gave it
0007/manifest.json    size and sha256 of all of these
0007/evidence.json    how it compared, once it was judged
0007/converted/       the model in other forms, as whoever loads it may keep it
0007/data/, 0007/checkpoints/    what it is made from, while it is being made and judged
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from tempfile import mkdtemp
from typing import Any

from daemon.errors import PermanentError, TemporaryError
from daemon.learning.durable import sync, write_whole
from daemon.learning.manifest import FORMAT, MANIFEST, bytes_in, is_as, model_files, read_object, stamp, stamps_of

ROOM = 3
"""Times the base model's size: a checkpoint with its optimizer takes about that."""

_FACTS = "training.json"
_OWNER = "owner"
_CONVERTED = "converted"
_ASIDE = ".removed-"


class Registry:
    """The folders of versions under `root`, for this user alone."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, version: int) -> Path:
        """Where a version is, or would be."""
        return self._root / f"{version:04}"

    def numbers(self) -> list[int]:
        """The versions that have a folder here, in order."""
        if not self._root.is_dir():
            return []
        return sorted(int(path.name) for path in self._root.iterdir() if path.name.isdecimal() and path.is_dir())

    def claim(self, version: int, owner: str) -> Path:
        """The folder in which `owner` makes this version: what it left there before is still there.

        A folder of the same number that another made, for another database perhaps, is moved out of the way and kept.
        """
        folder = self.folder(version)
        try:
            self._prepare()
            if folder.exists() and _owner(folder) != owner and not _bare(folder):
                folder.rename(Path(mkdtemp(prefix=f"{folder.name}.of-another-", dir=self._root)) / folder.name)
            folder.mkdir(mode=0o700, exist_ok=True)
            write_whole(folder / _OWNER, owner.encode())
            sync(folder, self._root)  # before anything heavy lies there, or a power cut would leave it to nobody
        except OSError as error:
            raise _unwritable(self._root, error) from error
        return folder

    def publish(self, version: int, facts: Mapping[str, Any]) -> None:
        """Make a version with a finished model/ whole, for good; then remove what it was only made with.

        Can be repeated. Raises `PermanentError` if there is no model in safetensors alone, or no room to keep it.
        """
        folder = self.folder(version)
        files = model_files(folder, version)
        try:
            self._publish(version, folder, files, facts)
        except OSError as error:
            raise PermanentError(
                f"Version {version} cannot be kept in {folder} ({error.strerror}): make room there.", reason="disk-full"
            ) from error

    def _publish(self, version: int, folder: Path, files: Sequence[str], facts: Mapping[str, Any]) -> None:
        self._prepare()
        folder.chmod(0o700)
        (folder / MANIFEST).unlink(missing_ok=True)  # while anything changes it says nothing
        sync(folder)
        for file in files:
            _flush(folder / file)
        sync(folder / "model")
        write_whole(folder / _FACTS, json.dumps(facts, ensure_ascii=False, indent=1).encode())
        sync(folder)
        manifest = {"format": FORMAT, "version": version, "files": {f: stamp(folder / f) for f in (*files, _FACTS)}}
        write_whole(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
        sync(folder, self._root)
        _drop_workings(folder)

    def check(self, version: int) -> Path:
        """The model's directory, every byte of it as it was published.

        Raises `PermanentError` if this host has it not, not whole, not as it was, or with a file that may run code, and
        `TemporaryError` where the machine fails.
        """
        folder = self.folder(version)
        files = model_files(folder, version)
        stamps = stamps_of(folder, version)
        if stamps is None:
            raise PermanentError(f"Version {version} is not whole on this host: train again.", reason="model-torn")
        if stamps.keys() != {*files, _FACTS} or not all(is_as(folder / f, stamps[f]) for f in stamps):
            raise PermanentError(
                f"Version {version} is not as it was published in {folder}: restore that folder, or choose another.",
                reason="model-changed",
            )
        return folder / "model"

    def converted(self, version: int) -> Path:
        """Where whoever loads a version may keep it in another form. It goes with the weights."""
        return self.folder(version) / _CONVERTED

    def whole(self, version: int) -> bool:
        """Whether the version's files are all here in their sizes. Reads none of the weights; `check` does."""
        folder = self.folder(version)
        try:
            stamps = stamps_of(folder, version)
            return bool(stamps) and all((folder / f).stat().st_size == s["bytes"] for f, s in (stamps or {}).items())
        except (OSError, KeyError, TypeError, TemporaryError):
            return False

    def read_facts(self, version: int) -> dict[str, Any] | None:
        """What the version was made of; None where nothing is known here."""
        return read_object(self.folder(version) / _FACTS)

    def read_evidence(self, version: int) -> dict[str, Any] | None:
        """How the version compared with the one before; None where nothing is known here."""
        return read_object(self.folder(version) / "evidence.json")

    def owner(self, version: int) -> str | None:
        """The mark of the run that made, or makes, the folder of this version."""
        return _owner(self.folder(version))

    def need_room(self, model: Path) -> None:
        """Raise `PermanentError` unless `ROOM` times the weights of the model in directory `model` fit on the disk."""
        try:
            self._prepare()
            need = room_for(model)
            free = shutil.disk_usage(self._root).free
        except OSError as error:
            raise _unwritable(self._root, error) from error
        if free < need:
            raise PermanentError(
                f"Training takes {need / 1e9:.1f} GB in {self._root}, where {free / 1e9:.1f} GB are free: make room.",
                reason="disk-full",
            )

    def retain(self, keep: Collection[int], newest: int) -> None:
        """Remove weights, data and checkpoints of versions not in `keep`. Their facts, evidence and logs stay.

        What is above `newest` another daemon may have begun since that was found: it is left alone.
        """
        goes = [version for version in self.numbers() if version not in keep and version <= newest]
        # All are aside before the first is removed, which takes its time: what is to be kept may change meanwhile.
        for aside in [path for version in goes for path in self._set_aside(version)]:
            shutil.rmtree(aside, ignore_errors=True)

    def sizes(self) -> dict[int, int]:
        """Bytes of each version that was published here and has its weights."""
        return {v: bytes_in(self.folder(v)) for v in self.numbers() if (self.folder(v) / MANIFEST).exists()}

    def drop_logs(self, keep: Collection[int], older_s: float) -> None:
        """Remove the trainer's and the judge's logs of versions not in `keep` that nobody wrote to for `older_s`."""
        before = time.time() - older_s
        for version in set(self.numbers()) - set(keep):
            for log in self.folder(version).glob("*.log*"):
                if log.stat().st_mtime < before:
                    log.unlink()

    def clean(self, training: Collection[int], newest: int) -> None:
        """Remove what a crash left behind: half removed folders, and all that is heavy of versions that never came to
        be and are not in `training`. What is above `newest` another daemon may have begun since that was found."""
        if not self._root.is_dir():
            return
        self._prepare()
        for path in self._root.glob(f"{_ASIDE}*"):
            shutil.rmtree(path, ignore_errors=True)
        for version in self.numbers():
            if (self.folder(version) / MANIFEST).exists():
                _drop_workings(self.folder(version))
            elif version <= newest and version not in training:
                for aside in self._set_aside(version):
                    shutil.rmtree(aside, ignore_errors=True)

    def drop_checkpoints(self, version: int) -> None:
        """Let a version's training begin anew, with the data that it has."""
        shutil.rmtree(self.folder(version) / "checkpoints", ignore_errors=True)

    def _set_aside(self, version: int) -> list[Path]:
        """Move all that is heavy of a version away: nobody ever finds half a model under a name that loads. Makes
        nothing new, for which a full disk has no room."""
        folder = self.folder(version)
        heavy = [path for path in folder.iterdir() if path.is_dir()]
        if heavy:
            (folder / MANIFEST).unlink(missing_ok=True)
        return [path.rename(self._root / f"{_ASIDE}{token_hex(8)}") for path in heavy]

    def _prepare(self) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root.chmod(0o700)


def room_for(model: Path) -> int:
    """Bytes that a training from the model in directory `model` takes."""
    return ROOM * sum(path.stat().st_size for path in model.glob("*.safetensors"))


def _unwritable(root: Path, error: OSError) -> PermanentError:
    return PermanentError(
        f"Nothing can be kept in {root} ({error.strerror}): look after its permissions and its disk.", reason="disk"
    )


def _drop_workings(folder: Path) -> None:
    """Remove what a whole version was made with: checkpoints, features, half a model."""
    for path in folder.iterdir():
        if path.is_dir() and path.name not in ("model", "data", _CONVERTED):
            shutil.rmtree(path, ignore_errors=True)


def _owner(folder: Path) -> str | None:
    try:
        return (folder / _OWNER).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def _bare(folder: Path) -> bool:
    """Whether a claim was cut off before it could say whose it is."""
    return all(path.name.startswith(f"{_OWNER}.") for path in folder.iterdir())


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
