"""Fine-tuning on the same data, steps and seed: as it is usually done, and as it is done here.

    python benchmarks/training.py [--window 9] [--steps 120] [--clips 100] [--seeds 1]

The usual way is told in `usual`; the held-out clips are tried at every fourth part of the steps. Right-sized windows
get half as many steps more as well: they take more to come as far. The model is that of `windows.py`; so are the clips.
Each seed has other clips. CPU seconds of one, from the audio files to the saved model; WER on 150 clips that nobody
trained on, each model heard as it was trained.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from report import Cost, Table, cost, heading
from stretch import BATCH, RATE, asked, fit, stretched, write
from usual import usual
from windows import hear

from daemon.asr.whisper.windows import Windows, read_windows
from daemon.local.speech import Utterance, speak_corpus

EVALS = 4
TRIED = 50
"""Clips in each evaluation while training."""


WAYS = (
    ("usual", None, 1.0),
    ("ours, whole windows", "whole", 1.0),
    ("ours, right-sized windows", "right-sized", 1.0),
    ("ours, right-sized windows", "right-sized", 1.5),
)
"""Name, windows and times the steps."""


def main() -> None:
    """Measure and print a table."""
    arguments = asked(__doc__)
    arguments.add_argument("--seeds", type=int, default=1)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print(f"{heading()}; window {given.window} s, {given.seeds} x {given.steps} steps on {given.clips} + 100 clips\n")
    spent, rates = [Cost() for _ in WAYS], [list[float]() for _ in WAYS]
    with tempfile.TemporaryDirectory(prefix="ambara-bench-") as folder:
        base = stretched(given.window, given.adapt, Path(folder))
        for seed in range(given.seeds):
            new, old = speak_corpus("B", given.clips, seed=500 + seed), speak_corpus("A", 100, seed=600 + seed)
            tried = speak_corpus("B", 150, seed=700 + seed, exclude=[clip.text for clip in new])
            data = write(Path(folder) / f"data-{seed}", train=[*new, *old], test=tried[:TRIED])
            for number, (_, windows, times) in enumerate(WAYS):
                steps, out = round(times * given.steps), Path(folder) / f"out-{seed}-{number}"
                with cost(spent[number]):
                    model = learned(base, data, out, windows, steps, seed)
                rates[number].append(_wer(model, given.window, tried))
    table = Table(("way", "steps", "CPU s", "of the usual", "WER held out"))  # now: a trainer prints lines of its own
    for (name, _, times), took, wers in zip(WAYS, spent, rates, strict=True):
        wer = f"{statistics.mean(wers):.1%}" + (f" ± {statistics.stdev(wers):.1%}" if len(wers) > 1 else "")
        table.add(
            name,
            f"{times * given.steps:.0f}",
            f"{took.cpu_s / given.seeds:.0f}",
            f"{spent[0].cpu_s / took.cpu_s:.1f}x",
            wer,
        )


def learned(base: Path, data: Path, out: Path, windows: str | None, steps: int, seed: int) -> Path:
    """Fine-tune in one of the ways; without windows in the usual one."""
    if windows is None:
        return usual(base, data, out, steps=steps, seed=seed, batch=BATCH, rate=RATE, evals=EVALS)
    model = fit(base, data, out, windows=windows, steps=steps, seed=seed, evals=EVALS).model
    assert model, "nobody stopped it"
    return model


def _wer(model: Path, window_s: int, clips: Sequence[Utterance]) -> float:
    windows: Windows = read_windows(model, str(model), float(window_s))
    return hear(model, windows, clips, Cost()).wer


if __name__ == "__main__":
    main()
