"""`ambara join` as a process of its own, in the place of another machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextmanager
def joined(state: Path, node: int = 1) -> Iterator[subprocess.Popen[str]]:
    """It sees the disk, and knows nothing else. What it says is in `state`/said-NODE."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("SUPABASE_", "AMBARA_", "HF_"))}
    command = [sys.executable, "-m", "daemon", "join", str(state), "--node", str(node)]
    with (
        (state / f"said-{node}").open("a") as said,
        subprocess.Popen(
            command,
            env=bare | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()
