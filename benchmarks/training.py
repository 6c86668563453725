"""Fine-tuning on the same data, steps and seed: as it is usually done, and as it is done here.

    python benchmarks/training.py [--window 9] [--steps 120] [--clips 100]

The usual way is told in `usual`; the held-out clips are tried at every fourth part of the steps. Right-sized windows
get half as many steps more as well: they take more to come as far. The model is that of `windows.py`; so are the clips.
CPU seconds from the audio files to the saved model; WER on 150 clips that nobody trained on, each model heard as it was
trained.
"""

from __future__ import annotations

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


def main() -> None:
    """Measure and print a table."""
    given = asked(__doc__).parse_args()
    torch.set_num_threads(1)
    new, old = speak_corpus("B", given.clips, seed=500), speak_corpus("A", 100, seed=600)
    tried = speak_corpus("B", 150, seed=700, exclude=[clip.text for clip in new])
    print(f"{heading()}; window {given.window} s, {given.steps} steps on {given.clips} + 100 clips\n")
    rows: list[tuple[str, ...]] = []
    first: Cost | None = None
    with tempfile.TemporaryDirectory(prefix="ambara-bench-") as folder:
        root = Path(folder)
        base = stretched(given.window, given.adapt, root)
        data = write(root / "data", train=[*new, *old], test=tried[:TRIED])
        for name, policy, steps in (
            ("usual", None, given.steps),
            ("ours, whole windows", "whole", given.steps),
            ("ours, right-sized windows", "right-sized", given.steps),
            ("ours, right-sized windows", "right-sized", given.steps * 3 // 2),
        ):
            found, out = Cost(), root / f"out-{policy}-{steps}"
            with cost(found):
                if policy is None:
                    model: Path | None = usual(
                        base, data, out, steps=steps, seed=0, batch=BATCH, rate=RATE, evals=EVALS
                    )
                else:
                    model = fit(base, data, out, windows=policy, steps=steps, seed=0, evals=EVALS).model
            assert model, "nobody stopped it"
            first = first or found
            rate, wer = f"{first.cpu_s / found.cpu_s:.1f}x", _wer(model, given.window, tried)
            rows.append((name, str(steps), f"{found.cpu_s:.0f}", rate, wer))
    table = Table(("way", "steps", "CPU s", "of the usual", "WER held out"))  # now: a trainer prints lines of its own
    for row in rows:
        table.add(*row)


def _wer(model: Path, window_s: int, clips: Sequence[Utterance]) -> str:
    windows: Windows = read_windows(model, str(model), float(window_s))
    return f"{hear(model, windows, clips, Cost()).wer:.1%}"


if __name__ == "__main__":
    main()
