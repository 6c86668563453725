"""How long a model takes to be there: with transformers, converted for CTranslate2, and converted once and kept.

    python benchmarks/loading.py [--shapes tiny small] [--times 3]

Weights of a published size, random (`shapes`). Seconds of the first `load_transcriber` in a process that has imported
what it needs, and the most memory that the process had by then, imports included: in the middle of `--times` processes.
The files are in the system's cache.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from pathlib import Path

from report import Table, heading
from shapes import SHAPES, make

WAYS = {
    "transformers": ("transformers", False),
    "CTranslate2, converted at each load": ("ctranslate2", False),
    "CTranslate2, kept": ("ctranslate2", True),
}
"""Name -> engine, and whether its conversion is kept."""


def load(model: str, engine: str, converted: str | None) -> tuple[float, float]:
    """Seconds of the first load of a process, and MB of that process after it."""
    import torch  # noqa: F401
    from transformers import WhisperForConditionalGeneration  # noqa: F401

    from daemon.asr.whisper.config import WhisperSettings
    from daemon.asr.whisper.load import load_transcriber

    settings = WhisperSettings(model=model, device="cpu", engine=engine, converted=converted)  # type: ignore[arg-type]
    began = time.monotonic()
    load_transcriber(settings)
    return time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    """Make the models, load them, print a table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--shapes", nargs="+", default=["tiny", "small"], choices=SHAPES)
    arguments.add_argument("--times", type=int, default=3)
    given = arguments.parse_args()
    print(f"{heading()}\n", flush=True)
    table = Table(["weights", "loaded with", "seconds", "memory, MB"])
    # A process's most memory begins at what its parent has, so this one does nothing. Each remembers what it hashed.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as fresh:
        for shape in given.shapes:
            with tempfile.TemporaryDirectory(prefix="ambara-loading-") as name:
                model, converted = Path(name) / "model", Path(name) / "converted"
                fresh.apply(make, (shape, model))
                for way, (engine, keeps) in WAYS.items():
                    given_to = (str(model), engine, str(converted) if keeps else None)
                    if keeps:
                        fresh.apply(load, given_to)
                    seconds, most = zip(*(fresh.apply(load, given_to) for _ in range(given.times)), strict=True)
                    table.add(shape, way, f"{statistics.median(seconds):.2f}", f"{statistics.median(most):.0f}")


if __name__ == "__main__":
    main()
