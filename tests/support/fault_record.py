"""What one fault of the suite did and showed, and the table of all of them.

A test of the suite bears ``@pytest.mark.fault("F05", "pg-restart")`` and takes the fixture `fault`. It says what was
injected, how long healing took, and which invariants held; what it says stands in the table that ends the run.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

COLUMNS = ("fault", "injected", "healed in", "held", "observed", "result", "seed")


@dataclass
class Fault:
    """One fault: its sizes, its dice, and its record."""

    number: str
    name: str
    seed: int
    full: bool
    nodeid: str
    what: str = ""
    healing_s: float | None = None
    held: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        # Of its own test: the order of the tests, and which of them run, changes nothing.
        self.random = random.Random(f"{self.seed}:{self.nodeid}")

    def size(self, *, full: int, short: int) -> int:
        """So many in `make faults`, and so many in `make test`."""
        return full if self.full else short

    def injected(self, what: str) -> None:
        """Say what is done to the system, with its numbers."""
        self.what = what

    @contextmanager
    def healing(self) -> Iterator[None]:
        """Measure from the end of the fault to what has to be true again; of several waits the longest counts."""
        began = time.monotonic()
        yield
        self.healing_s = max(self.healing_s or 0.0, time.monotonic() - began)

    def observe(self, note: str) -> None:
        """A number or a substitute that a reader of the table should know."""
        self.notes.append(note)

    def holds(self, invariant: str, broken: Iterable[object]) -> None:
        """Record that `invariant` holds, or fail with what breaks it. `broken`: what contradicts it; empty for none."""
        found = list(broken)
        assert not found, f"{self.number} {invariant}: {len(found)} broken, such as {found[:5]}"
        if invariant not in self.held:
            self.held.append(invariant)

    def row(self, result: str) -> dict[str, Any]:
        """The record as a line of the table."""
        healed = "" if self.healing_s is None else f"{self.healing_s:.1f} s"
        return dict(
            zip(
                COLUMNS,
                (
                    f"{self.number} {self.name}",
                    self.what,
                    healed,
                    ", ".join(self.held),
                    "; ".join(self.notes),
                    result,
                    self.seed,
                ),
                strict=True,
            )
        )


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table for a document, in the order of the faults' numbers."""
    ordered = sorted(rows, key=lambda row: str(row["fault"]))
    cells = [COLUMNS, *([str(row[name]).replace("|", "\\|") for name in COLUMNS] for row in ordered)]
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    return "\n".join([lines[0], "|" + "---|" * len(COLUMNS), *lines[1:]]) + "\n"
