"""What a child is asked to do, as a file: it holds paths and settings, and nothing secret."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from daemon.errors import TemporaryError
from daemon.learning.durable import sync


@dataclass(frozen=True, slots=True)
class _Job:
    kind: ClassVar[str]

    def write(self, path: Path) -> Path:
        """Write the job for this user's eyes alone, whole or not at all. Returns `path`.

        Raises `TemporaryError` if the disk does not take it.
        """
        try:
            self._write(path)
        except OSError as error:
            raise TemporaryError(f"{path} cannot be written: {error.strerror}.", reason="disk") from error
        return path

    def _write(self, path: Path) -> None:
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        text = json.dumps({"job": self.kind, **plain}, ensure_ascii=False, indent=1, default=_plain)
        half = path.with_name(f"{path.name}.part")
        half.unlink(missing_ok=True)
        number = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(number)
        half.replace(path)
        sync(path.parent)


@dataclass(frozen=True, slots=True)
class TrainJob(_Job):
    """Fine-tune a model."""

    kind: ClassVar[str] = "train"
    family: str
    settings: Mapping[str, Any]
    """Of the family's training."""
    data: Path
    """The frozen data set."""
    out: Path
    """Where ``checkpoints/`` and ``model/`` go."""
    resume: bool
    """Go on from the newest whole checkpoint, if there is one."""
    processes: int
    """How many train together on each machine, each with a share of every step."""
    nodes: int = 1
    """How many machines; all see these paths."""
    rendezvous: str = ""
    """``host:port`` of this machine, where the others find it; only where there are others."""


@dataclass(frozen=True, slots=True)
class EvaluateJob(_Job):
    """Compare a candidate with the live model. Each is given as ``{"family": str, "options": {...}}``."""

    kind: ClassVar[str] = "evaluate"
    live: Mapping[str, Any]
    candidate: Mapping[str, Any]
    data: Path
    """The frozen data set, whose held-out side is heard."""
    anchor: Path | None
    """A directory with ``metadata.csv`` (``file_name,transcription``): speech that must not be forgotten."""
    against: int
    """The live version's number."""
    confidence: float
    out: Path
    """Where the evidence goes, as JSON."""


Job = TrainJob | EvaluateJob


def read(path: Path) -> Job:
    """Read what `write` wrote. Raises `ValueError` if it is anything else, and `OSError` if there is no such file."""
    try:
        return _job(json.loads(path.read_bytes()))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is no job for a child: {error}.") from error


def _job(row: dict[str, Any]) -> Job:
    kind = row.pop("job")
    if kind == TrainJob.kind:
        kinds: dict[str, type] = {"family": str, "settings": dict, "data": Path, "out": Path}
        return TrainJob(**_checked(row, **kinds, resume=bool, processes=int, nodes=int, rendezvous=str))
    if kind != EvaluateJob.kind:
        raise ValueError(f"nobody does {kind}")
    judged: dict[str, type] = {"live": dict, "candidate": dict, "data": Path, "anchor": _Maybe}
    job = EvaluateJob(**_checked(row, **judged, against=int, confidence=float, out=Path))
    for model in (job.live, job.candidate):
        _checked(dict(model), family=str, options=dict)
    return job


class _Maybe:
    """A path, or none."""


def _checked(row: dict[str, Any], **kinds: type) -> dict[str, Any]:
    """The row's values as the kinds that they must have; nothing is missing, nothing is more."""
    if row.keys() != kinds.keys():
        raise ValueError(f"it has {', '.join(sorted(row.keys() ^ kinds.keys()))} too many or too few")
    return {name: _value(name, row[name], kind) for name, kind in kinds.items()}


def _value(name: str, value: Any, kind: type) -> Any:
    if kind is _Maybe and value is None:
        return None
    if kind in (Path, _Maybe) and isinstance(value, str) and value:
        return Path(value)
    if type(value) is kind:  # a bool is an int to isinstance
        return value
    raise ValueError(f"{name} cannot be {json.dumps(value)[:100]}")


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")
