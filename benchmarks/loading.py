"""How long a model takes to be there: with transformers, converted for CTranslate2, and converted once and kept.

    python benchmarks/loading.py [--shapes tiny small] [--times 3]

Weights of a published size, random (`shapes`). Seconds of `load_transcriber` in a process that has imported what it
needs, in the middle of `--times`, and the most memory that the process had after the first, imports included. The files
are in the system's cache.
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


def load(model: str, engine: str, converted: str | None, times: int) -> tuple[list[float], float]:
    """Seconds of each load, and MB of the process after the first. In a process of its own."""
    import torch  # noqa: F401
    from transformers import WhisperForConditionalGeneration  # noqa: F401

    from daemon.asr.whisper.config import WhisperSettings
    from daemon.asr.whisper.load import load_transcriber

    settings = WhisperSettings(model=model, device="cpu", engine=engine, converted=converted)  # type: ignore[arg-type]
    seconds: list[float] = []
    most = 0.0
    for _ in range(times):
        began = time.monotonic()
        load_transcriber(settings)
        seconds.append(time.monotonic() - began)
        most = most or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return seconds, most


def main() -> None:
    """Make the models, load them, print a table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--shapes", nargs="+", default=["tiny", "small"], choices=SHAPES)
    arguments.add_argument("--times", type=int, default=3)
    given = arguments.parse_args()
    print(f"{heading()}\n", flush=True)
    table = Table(["weights", "loaded with", "seconds", "memory, MB"])
    fresh = multiprocessing.get_context("spawn")
    for shape in given.shapes:
        with tempfile.TemporaryDirectory(prefix="ambara-loading-") as name:
            model, converted = Path(name) / "model", Path(name) / "converted"
            with fresh.Pool(1) as pool:  # a process's most memory begins at what its parent has
                pool.apply(make, (shape, model))
            for way, (engine, keeps) in WAYS.items():
                for times in [1, given.times] if keeps else [given.times]:  # the first makes it
                    with fresh.Pool(1) as pool:
                        seconds, most = pool.apply(load, (str(model), engine, str(converted) if keeps else None, times))
                table.add(shape, way, f"{statistics.median(seconds):.2f}", f"{most:.0f}")


if __name__ == "__main__":
    main()
