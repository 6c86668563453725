"""Writes a version's folder, and is killed or refused at one call of the file system after another.

``python training_storm_publish.py ROOT kill|ENOSPC|EIO FIRST STRIDE`` prints a line of JSON for each call: what was
there afterwards. Version 6 is old, version 7 is live, version 8 is about to be made.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from daemon.asr.training import TrainingError, TrainingResult
from daemon.asr.whisper import finished
from daemon.asr.whisper.windows import Windows
from daemon.errors import PermanentError
from daemon.learning.registry import Registry

NAMES = ("open", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir", "chmod", "scandir", "listdir", "stat")
FILES = ("model.safetensors", "config.json", "tokenizer.json")


_RESULT = TrainingResult(
    model=None,
    stopped=False,
    step=1,
    steps=1,
    clips=1,
    seconds=1.0,
    left_out={},
    device="cpu",
    precision="float32",
    batch_size=1,
    gradient_accumulation=1,
)


@dataclass(frozen=True, slots=True)
class _Weights:
    """Saves itself as a model and a processor of Hugging Face's do."""

    names: tuple[str, ...]

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        for name in self.names:
            (folder / name).write_bytes(name.encode() * 500)


class Refusal:
    """Counts calls of the file system, and does something at the one that was chosen."""

    def __init__(self, at: int, act: Callable[[], object]) -> None:
        self._at = at
        self._act = act
        self.calls = 0

    def install(self) -> None:
        """Stand between this process and its file system; in a process that ends soon."""
        for name in NAMES:
            setattr(os, name, self._counted(getattr(os, name)))
        real, tick = io.open, self.tick

        class Halved(io.FileIO):
            """Writes half before it counts, so that a kill there leaves half."""

            def write(self, data: Any) -> int:
                done = super().write(data[: len(data) // 2])
                tick()
                return done + super().write(data[done:])

        def opened(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            tick()
            return io.BufferedWriter(Halved(path, "wb")) if mode == "wb" else real(path, mode, *arguments, **options)

        io.open = opened  # type: ignore[assignment]

    def off(self) -> None:
        """Count no more."""
        self._at = -1

    def tick(self) -> None:
        if self._at < 0:
            return
        self.calls += 1
        if self.calls == self._at:
            self._act()

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.tick()
            return call(*arguments, **options)

        return counted


def write_version(root: Path, published: Callable[[], object] = lambda: None) -> None:
    """What a finished training does with the disk: claim, model, publish, then remove what nobody wants back.

    `published` is called once the version is said to be there for good.
    """
    registry = Registry(root)
    folder = registry.claim(8, "the run that makes version 8")
    if finished.found(folder, resume=True) is None:
        finished.publish(_Weights(FILES[:1]), _Weights(FILES[1:]), Windows.whole(30.0), folder, _RESULT)
    registry.publish(8, {"settings": {}})
    published()
    registry.retain({7, 8}, newest=8)


def told(root: Path) -> dict[str, Any]:
    """What anybody finds there."""
    registry = Registry(root)
    return {str(version): _verdict(registry, version) for version in (6, 7, 8)}


def _verdict(registry: Registry, version: int) -> str:
    try:
        model = registry.check(version)
    except PermanentError as error:
        return error.reason
    manifest = model.parent / "manifest.json"
    if not manifest.exists():
        return "accepted, and without a manifest"
    stamps = json.loads(manifest.read_bytes())["files"]
    hashes = {name: sha256((model.parent / name).read_bytes()).hexdigest() for name in stamps}
    whole = {name: stamp["sha256"] for name, stamp in stamps.items()} == hashes
    return "whole" if whole and registry.whole(version) else "accepted, and not whole"


def set_scene(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    registry = Registry(root)
    for version in (6, 7):
        folder = registry.claim(version, f"the run that made version {version}")
        (folder / "model").mkdir()
        for name in FILES:
            (folder / "model" / name).write_bytes(f"{version} {name}".encode() * 500)
        registry.publish(version, {})


def _once(root: Path, how: str, at: int) -> dict[str, Any]:
    """In a child: write the version and be stopped at one call; then, where it lives, write it again."""
    set_scene(root)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        said: dict[str, Any] = {}

        def act() -> None:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(getattr(errno, how), os.strerror(getattr(errno, how)))

        refusal = Refusal(at, act)
        refusal.install()
        try:
            write_version(root)
            said["said"] = "nothing"
        except PermanentError as error:
            said["said"] = error.reason
        except OSError as error:
            said["said"] = type(error).__name__
        said["calls"] = refusal.calls
        os.write(writing, json.dumps(said).encode())
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as file:
        said = json.loads(file.read() or b"{}")
    return {"at": at, "status": status, **said, "after": told(root)} | write_again(root)


def write_again(root: Path) -> dict[str, Any]:
    """The next start: write the version once more, clean up, and tell what is there and what was left over."""
    try:
        write_version(root)
    except (PermanentError, TrainingError) as error:
        return {"again": told(root) | {"8": str(error)}, "left": []}
    Registry(root).clean(set(), 8)
    left = {str(path.relative_to(root)) for path in root.rglob("*")}
    return {"again": told(root), "left": sorted(name for name in left if ".part" in name or ".removed" in name)}


def main(root: Path, how: str, first: int, stride: int) -> None:
    """Until a write gets through without having met its call."""
    at = first
    while True:
        found = _once(root, how, at)
        with suppress(BrokenPipeError):
            sys.stdout.write(json.dumps(found) + "\n")
        if found.get("calls", at) < at:
            return
        at += stride


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
