"""Right-sized windows against whole ones: the same data, steps and seeds; trained in either, and heard in either.

    python benchmarks/windows.py [--window 9] [--seeds 5] [--steps 120] [--clips 100]

The carried small Whisper, given windows of `--window` seconds and trained in these on what it knows (clips of 1-3 s,
so that 9 s are to them what 30 s are to clips of 5-15 s). Then it learns the clinic's words, each seed with other clips
and another order, and is judged on 150 clips of sentences that nobody trained on. Right-sized windows get half as many
steps more as well. "loops" are drafts that repeat themselves, "no end" those that fill the decoder; the second try at
higher temperatures is off.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from report import Cost, Table, cost, heading
from stretch import asked, fit, stretched, write

from daemon.asr.metrics import word_error_rate
from daemon.asr.transcriber import Draft
from daemon.asr.whisper import guards
from daemon.asr.whisper.config import GuardSettings, WhisperSettings
from daemon.asr.whisper.load import load_transcriber
from daemon.asr.whisper.windows import Windows
from daemon.local.speech import Utterance, speak_corpus

SETTINGS = WhisperSettings("", device="cpu", engine="transformers", guards=GuardSettings(temperatures=()))
POLICIES = ("whole", "right-sized")
LONGER = 1.5
"""Times the steps, of what is cheap enough to be given more."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of the held-out clips."""

    wer: float
    loops: float
    endless: float


def hear(model: Path, windows: Windows, clips: Sequence[Utterance], into: Cost) -> Heard:
    """Draft clips in windows that need not be the model's own."""
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(shutil.copytree(model, Path(folder) / "model"))
        windows.write(copied)
        transcriber = load_transcriber(replace(SETTINGS, model=str(copied)))
    with cost(into):
        drafts = transcriber.transcribe([clip.audio for clip in clips])
    return Heard(
        word_error_rate([clip.text for clip in clips], [draft.text for draft in drafts]),
        _share(drafts, guards.REPETITION),
        _share(drafts, guards.TRUNCATED),
    )


def _share(drafts: Sequence[Draft], flag: str) -> float:
    return sum(flag in draft.flags for draft in drafts) / len(drafts)


def _row(found: Sequence[Heard]) -> tuple[str, str, str]:
    rates = [100 * each.wer for each in found]
    spread = f" ± {statistics.stdev(rates):.1f}" if len(rates) > 1 else ""
    loops, endless = (
        100 * statistics.mean(values) for values in zip(*((f.loops, f.endless) for f in found), strict=True)
    )
    return f"{statistics.mean(rates):.1f} %{spread}", f"{loops:.1f} %", f"{endless:.1f} %"


def main() -> None:
    """Measure and print a table."""
    arguments = asked(__doc__)
    arguments.add_argument("--seeds", type=int, default=5)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    more = round(LONGER * given.steps)
    ways = {"whole": given.steps, "right-sized": given.steps, f"right-sized, {more} steps": more}
    ladders = {"whole": Windows.whole(float(given.window)), "right-sized": Windows.right_sized(float(given.window))}
    heard: dict[tuple[str, str], list[Heard]] = {}
    spent: dict[tuple[str, str], Cost] = {}
    print(
        f"{heading()}; window {given.window} s, {given.seeds} seeds, {given.steps} steps on {given.clips} + 100 clips\n"
    )
    with tempfile.TemporaryDirectory(prefix="ambara-bench-") as folder:
        root = Path(folder)
        base = stretched(given.window, given.adapt, root)
        for seed in range(given.seeds):
            new = speak_corpus("B", given.clips, seed=500 + seed)
            old = speak_corpus("A", 100, seed=600 + seed)
            tried = speak_corpus("B", 150, seed=700 + seed, exclude=[clip.text for clip in new])
            data = write(root / f"data-{seed}", train=[*new, *old], test=())
            trained = {"not trained": base}
            for name, steps in ways.items():
                windows, out = name.partition(",")[0], root / f"{name}-{seed}"
                with cost(spent.setdefault((name, ""), Cost())):
                    trained[name] = fit(base, data, out, windows=windows, steps=steps, seed=seed).model or base
            for name, model in trained.items():
                for served in POLICIES:
                    found = hear(model, ladders[served], tried, spent.setdefault((name, served), Cost()))
                    heard.setdefault((name, served), []).append(found)
    table = Table(
        ("trained in windows", "CPU s to train", "heard in windows", "CPU s to hear", "WER held out", "loops", "no end")
    )
    for (name, served), seeds in heard.items():
        training = spent.get((name, ""))
        each = [f"{used.cpu_s / given.seeds:.1f}" if used else "" for used in (training, spent[name, served])]
        table.add(name, each[0], served, each[1], *_row(seeds))


if __name__ == "__main__":
    main()
