"""Writes a version's folder, and the power fails before one call of the file system after another.

``python training_storm_power.py ROOT FIRST STRIDE DRAWS SEED`` prints a line of JSON for each call and each of the
DRAWS disks that such a cut may leave, with the same versions as `training_storm_publish`. The last lines, of a write
that got through, are of a cut after the end.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

from power_cut import Choice, Disk, chance, empty_files, worst
from training_storm_publish import Refusal, set_scene, told, write_again, write_version


def _choices(draws: int, dice: random.Random) -> list[Choice]:
    return [worst, empty_files, *(chance(random.Random(dice.random())) for _ in range(draws - 2))]


def _cut(root: Path, at: int, choices: list[Choice]) -> dict[str, Any]:
    """In a child: write the version until the power fails, and lay out beside `root` what may be left."""
    set_scene(root)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        disk, published = Disk(root), []
        disk.settle()

        def fails() -> None:
            os.write(writing, json.dumps({"published": bool(published), "calls": refusal.calls}).encode())
            refusal.off()
            for number, choice in enumerate(choices):
                disk.after_cut(root.with_name(f"after-{number}"), choice)
            os._exit(0)

        refusal = Refusal(at, fails)
        disk.install()
        refusal.install()
        write_version(root, lambda: published.append(True))
        fails()
    os.close(writing)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with {status} at call {at}"
    with os.fdopen(reading, "rb") as file:
        said: dict[str, Any] = json.loads(file.read())
    return said


def main(root: Path, first: int, stride: int, draws: int, seed: int) -> None:
    """Until a write gets through."""
    os.fsync = lambda _: None  # nobody pulls the plug of this machine
    dice = random.Random(seed)
    at = first
    while True:
        for old in root.parent.glob("after-*"):
            shutil.rmtree(old)
        said = _cut(root, at, _choices(draws, dice))
        for number in range(draws):
            after = root.with_name(f"after-{number}")
            found = {"at": at, "draw": number, **said, "after": told(after)}
            sys.stdout.write(json.dumps(found | write_again(after)) + "\n")
        if said["calls"] < at:
            return
        at += stride


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
