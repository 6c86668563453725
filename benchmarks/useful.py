"""Which clips should people correct first: as they come, or those that the model is least sure of?

    python benchmarks/useful.py [--new 50] [--seeds 5] [--pool 200] [--steps 60] [--budgets 20,40,80]

The carried small Whisper knows the market. A pool of clips waits for people: `--new` percent from the clinic, which it
does not know, one in twenty bursts of noise, the rest from the market. It drafts them all once. People then correct so
many clips in either order; each time the same base is trained with the same steps and seed on these and on 100 market
clips that were corrected before, and hears 120 clips of sentences that nobody trained on, mixed as the pool is. A burst
is discarded: it takes a place and teaches nothing. Each seed has other clips, arrivals and training. "For the same":
how many corrections, and seconds of audio in them, it takes in that order until the model is first as good as the last
budget makes it by arrival; between two budgets by a straight line.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import torch
from report import Cost, Table, cost, heading
from stretch import fit, write

from daemon.asr.metrics import word_error_rate
from daemon.asr.transcriber import SAMPLE_RATE, Draft
from daemon.asr.whisper.config import WhisperSettings
from daemon.asr.whisper.load import load_transcriber
from daemon.local.speech import Utterance, speak_corpus
from daemon.local.tiny import BASE

SETTINGS = WhisperSettings("", device="cpu")
TRIED, BEFORE = 120, 100
Pool = list[tuple[Utterance, Draft]]


def by_arrival(pool: Pool, _: Random) -> Pool:
    """As they came, which is by chance."""
    return pool


def least_sure(pool: Pool, _: Random) -> Pool:
    """As the option has it: `Draft.uncertainty` first, and where that is equal by arrival."""
    return sorted(pool, key=lambda each: -each[1].uncertainty)


ORDERS: dict[str, Callable[[Pool, Random], Pool]] = {"arrival": by_arrival, "least sure": least_sure}
OTHERS = [name for name in ORDERS if name != "arrival"]


@dataclass(frozen=True, slots=True)
class Point:
    """After so many corrections."""

    clips: int
    seconds: float
    """Of audio in them: what people's time goes with."""
    new: int
    """Of the clinic."""
    wer: float


def bursts(draw: np.random.Generator) -> Utterance:
    """Noise that rises and falls, as clatter does."""
    level = np.repeat(draw.uniform(0.0, 0.6, 20) ** 2, SAMPLE_RATE // 10)
    wave = draw.standard_normal(len(level)) * level
    return Utterance("", "nobody", "B", (0.6 * wave / np.abs(wave).max()).astype(np.float32))


def mixed(count: int, new: float, seed: int, exclude: Sequence[str] = ()) -> list[Utterance]:
    """Clips of both worlds, by chance."""
    fresh = round(count * new)
    clips = speak_corpus("B", fresh, seed=seed, exclude=exclude) if fresh else []
    clips += speak_corpus("A", count - fresh, seed=seed + 50, exclude=exclude) if count > fresh else []
    Random(seed).shuffle(clips)
    return clips


def hear(model: Path, clips: Sequence[Utterance]) -> list[Draft]:
    """Draft as the daemon does."""
    return load_transcriber(replace(SETTINGS, model=str(model))).transcribe([clip.audio for clip in clips])


def rate(model: Path, clips: Sequence[Utterance]) -> float:
    """Word error rate."""
    return word_error_rate([clip.text for clip in clips], [draft.text for draft in hear(model, clips)])


def play(given: argparse.Namespace, budgets: Sequence[int], seed: int, root: Path) -> dict[str, list[Point]]:
    """One seed: order -> what came of each budget, that of nothing first."""
    noises = given.pool // 20
    spoken = mixed(given.pool - noises, given.new / 100, 1000 + seed)
    draw = np.random.default_rng(seed)
    clips = [*spoken, *(bursts(draw) for _ in range(noises))]
    Random(seed).shuffle(clips)
    before = speak_corpus("A", BEFORE, seed=1200 + seed)
    tried = mixed(TRIED, given.new / 100, 1300 + seed, [clip.text for clip in (*spoken, *before)])
    pool = list(zip(clips, hear(BASE, clips), strict=True))
    nothing = Point(0, 0.0, 0, rate(BASE, tried))
    found = {}
    for name, order in ORDERS.items():
        ordered = [clip for clip, _ in order(pool, Random(seed))]
        points = [nothing]
        for budget in budgets:
            chosen = ordered[:budget]
            folder = root / f"{seed}-{name}-{budget}"
            data = write(folder / "data", train=[*before, *(clip for clip in chosen if clip.text)], test=())
            model = fit(BASE, data, folder / "out", windows="whole", steps=given.steps, seed=seed).model
            assert model, "nobody stopped it"
            seconds = sum(clip.seconds for clip in chosen)
            new = sum(clip.domain == "B" and bool(clip.text) for clip in chosen)
            points.append(Point(budget, seconds, new, rate(model, tried)))
        found[name] = points
    return found


def reached(points: Sequence[Point], goal: float, what: Callable[[Point], float]) -> float | None:
    """How much of `what` it takes to get to a word error rate; None if it is never reached."""
    for one, two in pairwise(points):
        if two.wer <= goal:
            return what(one) + (what(two) - what(one)) * (one.wer - goal) / max(one.wer - two.wer, 1e-9)
    return None


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation of percents."""
    return f"{100 * statistics.mean(values):.1f} % ± {100 * (statistics.stdev(values) if len(values) > 1 else 0):.1f}"


def by_budget(played: Sequence[dict[str, list[Point]]]) -> None:
    """Print the table of means."""
    table = Table(("corrections", *(f"{word}: {name}" for name in ORDERS for word in ("WER", "new ones", "audio"))))
    for at, point in enumerate(played[0]["arrival"]):
        cells = [str(point.clips)]
        for name in ORDERS:
            points = [each[name][at] for each in played]
            cells.append(spread([each.wer for each in points]))
            cells.append(f"{statistics.mean(each.new for each in points):.0f}")
            cells.append(f"{statistics.mean(each.seconds for each in points):.0f} s")
        table.add(*cells)


def by_seed(played: Iterable[dict[str, list[Point]]]) -> list[dict[str, list[Point]]]:
    """Print the table of seeds, a row when a seed is done, word error rates from no correction on. Returns them."""
    table = Table(("seed", *(f"WER: {name}" for name in ORDERS), *(f"for the same: {name}" for name in ORDERS)))
    known: list[dict[str, list[Point]]] = []
    for each in played:
        goal = each["arrival"][-1].wer
        rates = (" / ".join(f"{100 * point.wer:.1f}" for point in points) for points in each.values())
        table.add(str(len(known)), *rates, *(_takes(points, goal) for points in each.values()))
        known.append(each)
    return known


def in_the_mean(played: Sequence[dict[str, list[Point]]]) -> None:
    """Print what is saved."""
    mean = {name: [_mean(points) for points in zip(*(each[name] for each in played), strict=True)] for name in ORDERS}
    goal = mean["arrival"][-1]
    for name in OTHERS:
        pairs = [pair for each in played for pair in zip(each["arrival"][1:], each[name][1:], strict=True)]
        print(
            f"\nIn the mean of seeds, for the {goal.wer:.1%} that {goal.clips} corrections ({goal.seconds:.0f} s of "
            f"audio) give by arrival, {name} takes {_takes(mean[name], goal.wer)}. "
            f"Worse in {sum(two.wer > one.wer for one, two in pairs)} of {len(pairs)} trainings."
        )


def _mean(points: Sequence[Point]) -> Point:
    seconds, wer = (statistics.mean(values) for values in zip(*((p.seconds, p.wer) for p in points), strict=True))
    return Point(points[0].clips, seconds, 0, wer)


def _takes(points: Sequence[Point], goal: float) -> str:
    clips, seconds = (
        reached(points, goal, lambda point: point.clips),
        reached(points, goal, lambda point: point.seconds),
    )
    return "more than that" if clips is None or seconds is None else f"{clips:.0f} ({seconds:.0f} s)"


def main() -> None:
    """Play every seed, print two tables."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"new": 50, "seeds": 5, "pool": 200, "steps": 60}.items():
        arguments.add_argument(f"--{name}", type=int, default=default)
    arguments.add_argument("--budgets", default="20,40,80")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    budgets = [int(each) for each in given.budgets.split(",")]
    print(
        f"{heading()}; pool of {given.pool}, {given.new} % new, {given.seeds} seeds, {given.steps} steps\n", flush=True
    )
    took = Cost()
    with cost(took), tempfile.TemporaryDirectory(prefix="ambara-bench-") as folder:
        played = by_seed(play(given, budgets, seed, Path(folder)) for seed in range(given.seeds))
    print()
    by_budget(played)
    in_the_mean(played)
    print(f"\n{took.cpu_s:.0f} s of CPU")


if __name__ == "__main__":
    main()
