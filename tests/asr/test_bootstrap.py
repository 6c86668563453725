"""The interval: right on average, and honest about few recordings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from daemon.asr.bootstrap import Interval, paired_interval, student

WORDS = 12


def clips(rates: Sequence[float], per_recording: int, seed: int = 0) -> tuple[list[int], list[int], list[str]]:
    """Words gained per clip, in recordings whose true gains are `rates`."""
    draw = np.random.default_rng(seed)
    gains = [int(draw.binomial(WORDS, rate)) for rate in rates for _ in range(per_recording)]
    names = [f"r{at}" for at in range(len(rates)) for _ in range(per_recording)]
    return gains, [WORDS] * len(gains), names


def test_the_gain_is_pooled_over_words() -> None:
    found = paired_interval([3, -1, 0, 4], [10, 5, 25, 20], ["a", "a", "b", "b"], confidence=0.95)
    assert found.gain == pytest.approx(6 / 60)
    assert found.low < found.gain < found.high


@pytest.mark.parametrize("recordings", [2, 3])
def test_a_small_team_can_tell_an_obvious_gain(recordings: int) -> None:
    """60 % to about 5 % on so many recordings of 15 clips, some gaining more and some less."""
    found = paired_interval(*clips([0.50, 0.58, 0.55][:recordings], 15), confidence=0.95)
    assert 0.45 < found.gain < 0.65
    assert found.low > 0.05


def test_recordings_count_and_clips_do_not() -> None:
    """A gain that one recording has and the other has not is no gain in recordings, however many clips show it."""
    assert paired_interval(*clips([0.4, 0.0], 200), confidence=0.95).low < 0
    assert paired_interval(*clips([0.4, 0.0] * 10, 20), confidence=0.95).low > 0


def test_two_recordings_that_agree_by_chance_are_not_certain() -> None:
    """Three errors fewer in each of two recordings: the recordings do not differ at all, the clips do."""
    gains = ([2, 1, *[0] * 8, -1, *[0] * 3]) * 2
    found = paired_interval(gains, [WORDS] * len(gains), ["a"] * 14 + ["b"] * 14, confidence=0.95)
    assert found.gain > 0.01
    assert found.low < 0


def test_surer_is_wider() -> None:
    data = clips([0.2, 0.3, 0.25], 10)
    lows = [paired_interval(*data, confidence=sure).low for sure in (0.8, 0.9, 0.95, 0.99)]
    assert lows == sorted(lows, reverse=True)
    assert len(set(lows)) == 4


def test_one_recording_says_nothing_of_others() -> None:
    assert paired_interval([9, 9], [10, 10], ["a", "a"], confidence=0.95) == Interval(0.9, -1.0, 1.0)


def test_equal_input_gives_equal_output_in_any_naming() -> None:
    gains, words, names = clips([0.1, 0.2, 0.3], 8)
    first = paired_interval(gains, words, names, confidence=0.95)
    assert first == paired_interval(gains, words, [f"x{name}" for name in names], confidence=0.95)
    assert paired_interval([0] * 24, words, names, confidence=0.95) == Interval(0.0, 0.0, 0.0)


def test_many_clips_are_drawn_in_pieces() -> None:
    gains, words, names = clips([0.1, 0.2] * 10, 300)
    found = paired_interval(gains, words, names, confidence=0.95)
    assert found.low == pytest.approx(0.15 - 1.8 * 0.0115, abs=0.01)


@pytest.mark.parametrize(
    ("gains", "words", "names", "confidence", "message"),
    [
        ([1], [1, 2], ["a"], 0.95, "one gain"),
        ([], [], [], 0.95, "reference word"),
        ([1, 2], [0, 0], ["a", "b"], 0.95, "reference word"),
        ([1, 2], [3, 4], ["a", "b"], 1.0, "between 0 and 1"),
    ],
)
def test_what_cannot_be_reckoned_is_refused(
    gains: list[int], words: list[int], names: list[str], confidence: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        paired_interval(gains, words, names, confidence=confidence)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 6.3138), (2, 2.9200), (3, 2.3534), (9, 1.8331), (29, 1.6991), (1e4, 1.6450)]
)
def test_students_quantile(freedom: float, quantile: float) -> None:
    assert student(0.95, freedom) == pytest.approx(quantile, abs=1e-3)
    assert student(0.5, freedom) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("recordings", [2, 3, 5, 10])
def test_equal_models_seldom_look_better(recordings: int) -> None:
    """Each model has luck of its own with every recording, and recordings differ in length by far."""
    draw = np.random.default_rng(recordings)
    rounds, wrong, percentile = 400, 0, 0
    for _ in range(rounds):
        lengths = 5 + draw.geometric(0.1, recordings)
        names = np.repeat(np.arange(recordings), lengths)
        errors = [
            draw.binomial(WORDS, (0.3 + draw.normal(0, 0.05, recordings)).clip(0.01, 0.99)[names]) for _ in range(2)
        ]
        gains = errors[0] - errors[1]
        found = paired_interval(gains.tolist(), [WORDS] * len(gains), names.tolist(), confidence=0.95, resamples=200)
        wrong += found.low > 0
        percentile += _percentile_low(gains, names, recordings, draw) > 0
    assert wrong <= 0.05 * rounds
    if recordings <= 5:
        assert percentile > 0.08 * rounds, "the simulation must be one in which a plain bootstrap goes wrong"


def _percentile_low(gains: np.ndarray, names: np.ndarray, recordings: int, draw: np.random.Generator) -> float:
    total, length = np.bincount(names, gains), np.bincount(names) * WORDS
    drawn = draw.integers(recordings, size=(200, recordings))
    return float(np.quantile(total[drawn].sum(1) / length[drawn].sum(1), 0.05))
