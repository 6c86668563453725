"""Daemons that are wrong in one place, to try the suite itself: each has to turn a named fault red.

A mutant is a copy of this checkout with one thing taken away. The fault runs there in its short form, as a person
would run it, and has to fail by the invariant that is named; a crash, or a failure of anything else, does not count.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
RUN_S = 480.0
"""Guard for one run of a mutant."""


@dataclass(frozen=True, slots=True)
class Change:
    """In `file`, `old` becomes `new`. `old` has to stand there exactly once."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """What is wrong, which fault sees it, and by which broken invariant."""

    name: str
    changes: tuple[Change, ...]
    fault: str
    breaks: str | tuple[str, ...]
    test: str = ""
    """A part of the test's name, where a fault has several."""

    def copy(self, folder: Path) -> Path:
        """The checkout with the change made, in `folder`."""
        for name in ("daemon", "handlers", "supabase", "tests", "systemd", "pyproject.toml", "README.md"):
            source = CHECKOUT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder / name)
        (folder / ".ambara").symlink_to(CHECKOUT / ".ambara")  # what npm has installed
        for change in self.changes:
            path = folder / change.file
            text = path.read_text(encoding="utf-8")
            assert text.count(change.old) == 1, f"{change.file} has not exactly one {change.old!r}"
            path.write_text(text.replace(change.old, change.new), encoding="utf-8")
        return folder


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a fault ended."""

    code: int
    output: str

    def broken(self, fault: str) -> list[str]:
        """The invariants of `fault` that were broken, as `Fault.holds` says it."""
        return re.findall(rf"AssertionError: {fault} (.+?): \d+ broken", self.output)


def play(checkout: Path, fault: str, *, test: str = "", seed: int, env: Mapping[str, str] | None = None) -> Verdict:
    """Run the short form of one fault in `checkout`."""
    command = [sys.executable, "-m", "pytest", "tests/faults", "--fault-only", fault, "--fault-seed", str(seed)]
    chosen = ["-k", test] if test else []
    # The outer run's workers are not this one's.
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [*command, "-p", "no:xdist", *chosen],
        cwd=checkout,
        env={**bare, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_S,
    )
    return Verdict(done.returncode, done.stdout + done.stderr)
