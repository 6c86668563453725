"""Drafting and training where a neighbour has taken a processor: how long the threads look before they sleep.

    python benchmarks/neighbour.py [--clips 32] [--steps 4]

The carried small Whisper with two threads, on two processors, and then with both on one: there the kernel may leave
them for good while another process computes on the other, and twice the time would be fair. "PyTorch's own" is the
OpenMP library's way where nobody sets GOMP_SPINCOUNT; "ours" is what `daemon.asr` sets. Wall seconds, the median of
three: waiting is what is measured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from report import Cost, Table, cost, heading
from stretch import fit, write

from daemon.asr.whisper.config import WhisperSettings
from daemon.asr.whisper.load import load_transcriber
from daemon.local.speech import speak_corpus
from daemon.local.tiny import BASE

WAYS = {
    "drafting, transformers": "transformers",
    "drafting, CTranslate2": "ctranslate2",
    "training": "training",
}
WAITING: dict[str, dict[str, str]] = {"PyTorch's own": {"GOMP_SPINCOUNT": "300000"}, "ours": {}}
"""libgomp's own count where there are no more threads than processors (its manual, GOMP_SPINCOUNT)."""
TIMES = 3


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall seconds with the threads where they like, and with all of them on one processor."""

    def once() -> float:
        found = Cost()
        with cost(found):
            work()
        return found.wall_s

    work()
    free = statistics.median(once() for _ in range(TIMES))
    one = {max(os.sched_getaffinity(0))}
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), one)
    return free, statistics.median(once() for _ in range(TIMES))


def one_way(what: str, clips: int, steps: int) -> tuple[float, float]:
    """Time it, in this process."""
    if what == "training":
        with tempfile.TemporaryDirectory(prefix="ambara-bench-") as folder:
            data = write(Path(folder) / "data", train=speak_corpus("B", 64, seed=500), test=())
            outs = (Path(folder) / str(number) for number in range(2 * TIMES + 1))
            return timed(lambda: fit(BASE, data, next(outs), windows="whole", steps=steps, seed=0))
    engine: Any = what
    model = load_transcriber(replace(WhisperSettings(str(BASE), device="cpu"), engine=engine))
    audio = [clip.audio for clip in speak_corpus("A", clips, seed=31)]
    return timed(lambda: model.transcribe(audio))


def main() -> None:
    """Measure and print a table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--clips", type=int, default=32)
    arguments.add_argument("--steps", type=int, default=4)
    arguments.add_argument("--only", choices=WAYS.values())
    given = arguments.parse_args()
    if given.only:
        print(*one_way(given.only, given.clips, given.steps))
        return
    print(f"{heading()}; {given.clips} clips, {given.steps} steps\n")
    table = Table(("what", "threads wait", "on two processors, s", "on one, s", "times"))
    others = {name: its for name, its in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, __file__, "--clips", str(given.clips), "--steps", str(given.steps), "--only"]
    for name, what in WAYS.items():
        for said, waiting in WAITING.items():
            environment = others | {"OMP_NUM_THREADS": "2"} | waiting
            found = subprocess.run(
                [*command, what], env=environment, stdout=subprocess.PIPE, text=True, check=True
            ).stdout
            free, crowded = (float(each) for each in found.split()[-2:])
            table.add(name, said, f"{free:.2f}", f"{crowded:.2f}", f"{crowded / free:.1f}x")


if __name__ == "__main__":
    main()
