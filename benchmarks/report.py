"""What every table needs around it."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

_SAID = ("torch", "transformers", "ctranslate2", "faster-whisper")


@dataclass(slots=True)
class Cost:
    """Of a stretch of work."""

    cpu_s: float = 0.0
    """Of this process, all its threads, and the children that it waited for."""
    wall_s: float = 0.0


@contextmanager
def cost(into: Cost) -> Iterator[None]:
    """Add what the body takes."""
    cpu, wall = _cpu(), time.monotonic()
    yield
    into.cpu_s += _cpu() - cpu
    into.wall_s += time.monotonic() - wall


@dataclass(slots=True)
class Table:
    """Prints itself row by row, as Markdown."""

    head: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        print(f"| {' | '.join(self.head)} |\n|{'---|' * len(self.head)}", flush=True)

    def add(self, *cells: str) -> None:
        """Print one more row."""
        self.rows.append(cells)
        print(f"| {' | '.join(cells)} |", flush=True)


def spread(values: Sequence[float], form: str) -> str:
    """The median, and behind it the least and the most."""
    least, middle, most = (format(each(values), form) for each in (min, statistics.median, max))
    return middle if len(values) == 1 else f"{middle} ({least}-{most})"


def failure(error: Exception) -> str:
    """Why a figure is missing."""
    return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def heading() -> str:
    """Date, commit, machine and versions: figures mean nothing without."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {_commit()}, {os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB, "
        f"Python {platform.python_version()}, {', '.join(_versions())}"
    )


def _commit() -> str:
    """Of the code that runs: the tables themselves get into the documents one after the other."""
    commit, changes = (
        _git("rev-parse", "--short", "HEAD"),
        _git("status", "--porcelain", "--", ":/", ":(top,exclude)docs"),
    )
    return f"{commit} with changes" if commit and changes else commit or "unknown"


def _git(*arguments: str) -> str:
    git = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:  # a lent machine has the files alone
        return ""


def _versions() -> Iterator[str]:
    for name in _SAID:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            continue


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
