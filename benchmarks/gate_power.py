"""How often does the gate promote a model that is no better, and how often one that is?

    python benchmarks/gate_power.py [--rounds 3000] [--seed 1]

Simulated: clips of 8-40 words; live model at 30 % word error rate. A recording is easier or harder for both models
(log-odds, standard deviation 0.5), a clip as well (0.8); each model has luck of its own with a clip (0.4) and with a
recording (`own`: a standard deviation of 0.2 is about 4 % of word error rate). Judged by the same code as in the
daemon, with the default policy. The power takes a fifth of the rounds.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from daemon.asr.bootstrap import paired_interval
from handlers.policy import PromotionPolicy
from handlers.promotion import Outcome, judge
from handlers.snapshot import Comparison

BASE_RATE = 0.30
RECORDING, CLIP, OWN_CLIP = 0.5, 0.8, 0.4
CONFIDENCE = 0.95
GAINS = (0.01, 0.02, 0.03, 0.05, 0.10)
SIZES = {20: 2, 50: 4, 100: 6, 200: 10, 500: 20}
"""Held-out clips, and the recordings that they come from."""
CLIPS_PER_RECORDING = 15

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class World:
    """What differs between the rows of a table."""

    own: float
    """Each model's luck with a recording, log-odds."""
    unequal: bool = False
    """Recordings differ in length by a factor of ten and more."""
    heavy: bool = False
    """Recordings, and luck with them, of Student's t with 3 degrees of freedom: now and then one is very odd."""

    def say(self) -> str:
        """For a table."""
        return f"{self.own:.1f}" + ", unequal" * self.unequal + ", heavy tails" * self.heavy


def luck(draw: np.random.Generator, heavy: bool, spread: float, count: int) -> Floats:
    """Log-odds of recordings."""
    return spread * (draw.standard_t(3, count) / 3**0.5 if heavy else draw.standard_normal(count))


def shift(world: World, rate: float) -> float:
    """The log-odds at which a model's mean word error rate is `rate`."""
    draw = np.random.default_rng(0)
    spread = luck(draw, world.heavy, RECORDING, 200_000) + luck(draw, world.heavy, world.own, 200_000)
    spread += np.hypot(CLIP, OWN_CLIP) * draw.standard_normal(200_000)
    low, high = -6.0, 4.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if np.mean(chance(spread + middle)) < rate else (low, middle)
    return low


def chance(odds: Floats) -> Floats:
    """From log-odds."""
    return np.asarray(1 / (1 + np.exp(-odds)), dtype=np.float64)


def outcome(draw: np.random.Generator, world: World, clips: int, recordings: int, at: tuple[float, float]) -> Outcome:
    """One comparison."""
    names = np.arange(clips) % recordings
    if world.unequal:
        size = draw.lognormal(0, 1, recordings)
        names[recordings:] = draw.choice(recordings, clips - recordings, p=size / size.sum())
    words = draw.integers(8, 41, clips)
    shared = luck(draw, world.heavy, RECORDING, recordings)[names] + CLIP * draw.standard_normal(clips)
    live, candidate = (
        draw.binomial(
            words,
            chance(
                base
                + shared
                + luck(draw, world.heavy, world.own, recordings)[names]
                + OWN_CLIP * draw.standard_normal(clips)
            ),
        )
        for base in at
    )
    found = paired_interval((live - candidate).tolist(), words.tolist(), names.tolist(), confidence=CONFIDENCE)
    total = int(words.sum())
    comparison = Comparison(
        against=1,
        clips=clips,
        recordings=recordings,
        words=total,
        live_wer=float(live.sum()) / total,
        candidate_wer=float(candidate.sum()) / total,
        gain_low=found.low,
        gain_high=found.high,
        confidence=CONFIDENCE,
    )
    return judge(comparison, PromotionPolicy()).outcome


def promoted(rounds: int, seed: int, world: World, clips: int, recordings: int, gain: float) -> str:
    """The share of comparisons that end with a promotion, in percent."""
    at = shift(world, BASE_RATE), shift(world, BASE_RATE - gain)
    draw = np.random.default_rng([seed, clips, round(1000 * gain), round(10 * world.own), world.unequal, world.heavy])
    better = sum(outcome(draw, world, clips, recordings, at) is Outcome.BETTER for _ in range(rounds))
    return f"{100 * better / rounds:.1f}"


def table(head: list[str], rows: list[list[str]]) -> None:
    """Print markdown."""
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(row) + " |", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description="How sure is the gate?")
    options.add_argument("--rounds", type=int, default=3000)
    options.add_argument("--seed", type=int, default=1)
    asked = options.parse_args()
    equal, better = partial(promoted, asked.rounds, asked.seed), partial(promoted, asked.rounds // 5, asked.seed)
    print(f"Promoted although equal, % of {asked.rounds} comparisons (seed {asked.seed}):\n")
    recordings = (2, 3, 5, 10, 20)
    worlds = [World(0.0), World(0.2), World(0.5), World(0.2, True), World(0.5, True), World(0.5, True, True)]
    sizes = [(max(20, CLIPS_PER_RECORDING * number), number) for number in recordings]
    table(
        ["own luck with a recording", *(f"{number} recordings, {clips} clips" for clips, number in sizes)],
        [[world.say(), *(equal(world, *size, 0.0) for size in sizes)] for world in worlds],
    )
    for own in (0.1, 0.3):
        print(f"\nPromoted when better, % of {asked.rounds // 5} comparisons; own luck with a recording {own}:\n")
        table(
            ["held-out clips", "recordings", *(f"gain {gain:.0%}".replace("%", " %") for gain in GAINS)],
            [
                [str(clips), str(number), *(better(World(own), clips, number, gain) for gain in GAINS)]
                for clips, number in SIZES.items()
            ],
        )


if __name__ == "__main__":
    main()
