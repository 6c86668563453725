"""A model family that learns in a second: everything around the learning is the daemon's own.

Its weights are one file; its training takes so many steps of so many seconds, keeps a checkpoint after each, and goes
on from the last. Run as a program it is the daemon's child with this family in it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from daemon.asr import families
from daemon.asr.training import Progress, TrainingError, TrainingResult
from daemon.asr.transcriber import Draft, Transcriber, Waveform
from daemon.asr.whisper import finished
from daemon.asr.whisper.windows import Windows
from daemon.learning import child
from daemon.learning.durable import write_whole

FAMILY = "quick"
WEIGHTS = "model.safetensors"
STEPS = 8
FILL_WHEN_HEARD = "fill-when-heard"
"""Beside a model: what to fill the disk with while the model is heard."""


def base_model(folder: Path) -> Path:
    """Something to start from."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(b"untrained")
    return folder


def install() -> None:
    """Make the family known in this process."""
    tables: tuple[tuple[Any, Callable[..., Any]], ...] = (
        (families.TRAINERS, _train),
        (families.FAMILIES, lambda options: _Quick(Path(options["model"]))),
        (families.FINGERPRINTS, lambda options: _digest(Path(options["model"]))),
        (families.FINDERS, lambda options: Path(options["model"])),
    )
    for table, entry in tables:
        table[FAMILY] = entry


class _Quick(Transcriber):
    def __init__(self, model: Path) -> None:
        self.name, self.fingerprint, self.window_s = str(model), _digest(model), 30.0

    def transcribe(self, batch: Sequence[Waveform]) -> list[Draft]:
        flag = Path(self.name).parent / FILL_WHEN_HEARD
        if flag.exists():
            fill(Path(flag.read_text()))
        return [Draft("teny", -0.1) for _ in batch]


def _train(
    options: Mapping[str, Any],
    data: Path,
    out: Path,
    *,
    report: Callable[[Progress], None],
    stop: Callable[[], bool],
    resume: bool,
) -> TrainingResult:
    """`options["arguments"]`: ``step_s``; ``lock``, a file that shows who trains; ``fill``, what takes the disk's
    room and when (``checkpoint`` or ``end``); ``eat``, a file that, once it is there, makes this want all memory."""
    wishes = options["arguments"]
    whole = TrainingResult(out / "model", False, STEPS, STEPS, 1, 1.0, {}, "cpu", "float32", 1, 1)
    if ended := finished.found(out, resume=True):
        return ended
    checkpoint = out / "checkpoints" / "checkpoint"
    checkpoint.parent.mkdir(exist_ok=True)
    done = len(checkpoint.read_bytes()) >> 10 if resume and checkpoint.exists() else 0
    with _alone(wishes.get("lock")):
        for step in range(done + 1, STEPS + 1):
            if stop():
                return TrainingResult(None, True, step - 1, STEPS, 1, 1.0, {}, "cpu", "float32", 1, 1)
            time.sleep(wishes.get("step_s", 0.1))
            if "eat" in wishes and Path(wishes["eat"]).exists():
                _eat()
            if step == STEPS // 2 and wishes.get("fill_at") == "checkpoint":
                fill(Path(wishes["fill"]))
            write_whole(checkpoint, bytes(step << 10))
            report(Progress("training", step, STEPS))
        weights = _Weights(_digest(data, "manifest.json", out.name).encode())
        result = finished.publish(weights, weights, Windows.whole(30.0), out, whole)
        if wishes.get("fill_at") == "end":
            fill(Path(wishes["fill"]))
    return result


@dataclass(frozen=True, slots=True)
class _Weights:
    data: bytes

    def save_pretrained(self, folder: Path) -> None:
        write_whole(folder / WEIGHTS, self.data)


class _alone:  # noqa: N801 - a context manager that reads as a word
    """Holds a lock for as long as this process trains, however it ends; notes where another holds it, too."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._number = -1

    def __enter__(self) -> None:
        if not self._path:
            return
        self._number = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with Path(f"{self._path}.overlaps").open("a") as file:
                file.write(f"{os.getpid()}\n")

    def __exit__(self, *_: object) -> None:
        if self._number >= 0:
            os.close(self._number)


def fill(ballast: Path) -> None:
    """Take what is left of a disk, once."""
    if ballast.exists():
        return
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def _eat() -> None:
    """Want more memory than there is."""
    held = []
    with suppress(MemoryError):
        while True:
            held.append(os.urandom(1 << 20) * 4)
    raise TrainingError("out-of-memory", "Memory ran out.")


def _digest(folder: Path, name: str = WEIGHTS, salt: str = "") -> str:
    return sha256((folder / name).read_bytes() + salt.encode()).hexdigest()


if __name__ == "__main__":
    install()
    sys.exit(child.main(sys.argv[1:]))
