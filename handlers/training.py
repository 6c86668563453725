"""Shall we train?"""

from __future__ import annotations

from collections.abc import Iterable

from handlers.commands import Command, Lane, Train
from handlers.policy import Policy, TrainingPolicy
from handlers.snapshot import Failure, Learning, Snapshot, Training

LEAST_COOLDOWN = 0.25
"""Minutes, whatever the settings say: a run that fails at once would else begin, and be stored, many times a second."""


def train(snapshot: Snapshot, policy: Policy) -> Iterable[Command]:
    """Train when enough is new, or go on with a run that lost its worker."""
    if snapshot.learning and why_not_train(snapshot, policy) is None:
        training = snapshot.learning.training
        clips, minutes = bar(training, policy.training)
        yield Train(clips, minutes, retry_of=training.failure.run if training.failure else None)


def bar(training: Training, policy: TrainingPolicy) -> tuple[int, float]:
    """How many new corrections, or how many minutes of them, begin a run: more, the more was trained on before."""
    return (
        max(policy.min_new_clips, round(policy.growth * training.trained_clips)),
        max(policy.min_new_minutes, policy.growth * training.trained_minutes),
    )


def why_not_train(snapshot: Snapshot, policy: Policy) -> str | None:
    """What keeps the daemon from training, in words; None when nothing does."""
    learning = snapshot.learning
    if learning is None:
        return "nobody has counted the corrections yet"
    if Lane.WORK in snapshot.busy:
        return "this daemon is training or evaluating"
    rules = policy.training
    if not rules.enabled:
        return "training is switched off (enabled under [training])"
    active = learning.training.active
    if active:
        return None if active.abandoned else f"run {active.run} is under way on {active.worker}"
    return _nothing_to_judge_by(learning.training) or (
        None if learning.training.asked else _not_yet(learning, rules) or _not_now(learning, rules)
    )


def _nothing_to_judge_by(training: Training) -> str | None:
    if training.recordings == 0:
        return "nobody has corrected a clip yet"
    if training.recordings < 2:
        return (
            "no held-out recording yet: all corrections are of one recording, and a model is judged on recordings "
            "that it was not trained on, so correct some clips of another"
        )
    if training.held_out >= training.recordings:
        return "every corrected recording is held out: correct some clips of another"
    return None


def _not_yet(learning: Learning, policy: TrainingPolicy) -> str | None:
    training = learning.training
    clips, minutes = bar(training, policy)
    if training.failure:  # what it was begun for is still to be learned
        return None
    if training.new_clips >= clips or training.new_minutes >= minutes > 0:
        return None
    return f"{training.new_clips} of {clips} new corrections ({training.new_minutes:.1f} of {minutes:.1f} minutes)"


def _not_now(learning: Learning, policy: TrainingPolicy) -> str | None:
    failure = learning.training.failure
    if failure and (left := cooldown_minutes(failure, policy) - failure.minutes_ago) > 0:
        wait = f"{left:.0f} min" if left >= 1 else "less than a minute"
        return f"cooling down for {wait} after run {failure.run}: {failure.message}"
    if policy.hours and not _within(learning.hour, *policy.hours):
        first, last = policy.hours
        return f"training begins between {first}:00 and {last}:00, and it is past {learning.hour}:00"
    return None


def cooldown_minutes(failure: Failure, policy: TrainingPolicy) -> float:
    """How long to leave it after a failure: doubles with each in a row, up to a day."""
    doublings = min(failure.in_a_row - 1, 16)
    first = max(policy.cooldown_minutes, LEAST_COOLDOWN)
    return float(min(first * 2**doublings, policy.cooldown_most_minutes))


def _within(hour: int, first: int, last: int) -> bool:
    return first <= hour < last if first < last else hour >= first or hour < last
