"""Run what a CPU can tell, and write the tables into docs/performance.md: ``make bench``.

Each goes between ``<!-- NAME -->`` and ``<!-- /NAME -->``; the words around stay. About 20 minutes on two cores.

    python benchmarks/all.py [NAME …]
    python benchmarks/all.py eight-bits loading neighbour    # some minutes each
    python benchmarks/all.py drafting-small training-seeds   # a quarter of an hour and more
    python benchmarks/all.py windows                         # more than an hour
    python benchmarks/all.py gpu-small gpu-large-v3          # on a graphics card, see gpu.py
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "performance.md"
SETS = {
    "drafting": ("drafting.py",),
    "training": ("training.py",),
    "latency": ("latency.py",),
    "pipeline": ("pipeline.py",),
}
"""Name -> script and arguments."""
NAMED = {
    "eight-bits": ("eight_bits.py",),
    "loading": ("loading.py",),
    "drafting-small": ("drafting.py", "--shapes", "small=64"),
    "training-seeds": ("training.py", "--seeds", "5"),
    "windows": ("windows.py", "--window", "30"),
    "neighbour": ("neighbour.py",),
    "gpu-small": ("gpu.py", "--shape", "small"),
    "gpu-large-v3": ("gpu.py", "--shape", "large-v3"),
}
"""The same, of what would make it longer than 20 minutes, or needs a graphics card: measured only where it is named."""


def put(document: str, name: str, words: str) -> str:
    """The document with other words under a name. Raises `ValueError` where it has no such place."""
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = document.partition(first)
    _, closed, after = rest.partition(last)
    if not (found and closed):
        raise ValueError(f"The document has no place for {name}.")
    return f"{before}{first}\n{words.strip()}\n{last}{after}"


def main(names: list[str]) -> int:
    """Run them one after the other. Returns how many failed; their tables stay as they are."""
    return sum(not run(name) for name in names or SETS)


def run(name: str) -> bool:
    """Run one, print what it says, and put that into the document. Returns whether it went well."""
    script, *arguments = (SETS | NAMED)[name]
    print(f"\n## {name}\n", flush=True)
    began = time.monotonic()
    command = [sys.executable, str(HERE / script), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent) as running:
        assert running.stdout
        said = []
        for line in running.stdout:
            print(line, end="", flush=True)
            said.append(line)
    print(f"\n{time.monotonic() - began:.0f} s{', FAILED' if running.returncode else ''}", flush=True)
    if running.returncode == 0:
        DOCUMENT.write_text(put(DOCUMENT.read_text(encoding="utf-8"), name, "".join(said)), encoding="utf-8")
    return running.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
