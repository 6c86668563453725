"""Run what a CPU can tell, and write the tables into docs/performance.md: ``make bench``.

Each goes between ``<!-- NAME -->`` and ``<!-- /NAME -->``; the words around stay. About 20 minutes on two cores.

    python benchmarks/all.py [NAME …]
    python benchmarks/all.py gpu-small gpu-large-v3    # on a graphics card, see gpu.py
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
    "windows": ("windows.py",),
    "training": ("training.py",),
    "latency": ("latency.py",),
    "pipeline": ("pipeline.py",),
}
"""Name -> script and arguments."""
ON_A_CARD = {
    "gpu-small": ("gpu.py", "--shape", "small"),
    "gpu-large-v3": ("gpu.py", "--shape", "large-v3"),
}
"""The same, of what needs a graphics card: measured only where it is named."""


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
    failed = 0
    for name in names or SETS:
        script, *arguments = (SETS | ON_A_CARD)[name]
        print(f"\n## {name}\n", flush=True)
        began = time.monotonic()
        with subprocess.Popen(
            [sys.executable, str(HERE / script), *arguments], stdout=subprocess.PIPE, text=True, cwd=HERE.parent
        ) as running:
            assert running.stdout
            said = []
            for line in running.stdout:
                print(line, end="", flush=True)
                said.append(line)
        failed += bool(running.returncode)
        print(f"\n{time.monotonic() - began:.0f} s{', FAILED' if running.returncode else ''}", flush=True)
        if not running.returncode:
            DOCUMENT.write_text(put(DOCUMENT.read_text(encoding="utf-8"), name, "".join(said)), encoding="utf-8")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
