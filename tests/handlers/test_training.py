"""When to train, as tables: what is decided and what `why` says agree."""

from __future__ import annotations

from dataclasses import replace

import pytest

from handlers import DECISIONS, LEARNING, handle, needs_learning
from handlers.commands import Command, Lane, Swap, Train
from handlers.drafting import swap
from handlers.events import ClipsChanged, ClipsDrafted, SweepDue, TrainingFailed
from handlers.policy import Policy, TrainingPolicy
from handlers.snapshot import ActiveRun, Failure, Learning, Snapshot, Training
from handlers.training import bar, cooldown_minutes, train, why_not_train

POLICY = Policy(training=TrainingPolicy(min_new_clips=50, min_new_minutes=10, growth=0.25, cooldown_minutes=15))
ENOUGH = Training(new_clips=50, new_minutes=4, trained_clips=0, trained_minutes=0, recordings=3, held_out=1)
FEW = replace(ENOUGH, new_clips=27)
LOST = Failure(run=7, message="out of memory", in_a_row=1, minutes_ago=3)


def snapshot(training: Training, *, hour: int = 12, busy: frozenset[Lane] = frozenset()) -> Snapshot:
    return Snapshot(live=1, loaded=1, ready=0, busy=busy, learning=Learning(training, candidate=None, hour=hour))


@pytest.mark.parametrize(
    ("training", "why"),
    [
        (ENOUGH, None),
        (FEW, "27 of 50 new corrections (4.0 of 10.0 minutes)"),
        (replace(FEW, new_minutes=10.0), None),
        (replace(ENOUGH, trained_clips=1000), "50 of 250 new corrections"),
        (replace(ENOUGH, trained_clips=1000, trained_minutes=100, new_minutes=24.9), "24.9 of 25.0 minutes"),
        (replace(ENOUGH, trained_clips=1000, trained_minutes=100, new_minutes=25.0), None),
        (replace(FEW, asked=True), None),
        (replace(ENOUGH, recordings=0, held_out=0), "nobody has corrected a clip yet"),
        (replace(ENOUGH, recordings=1, held_out=0), "no held-out recording yet"),
        (replace(ENOUGH, recordings=2, held_out=2), "every corrected recording is held out"),
        (replace(ENOUGH, recordings=1, held_out=0, asked=True), "no held-out recording yet"),
        (replace(ENOUGH, failure=LOST), "cooling down for 12 min after run 7: out of memory"),
        (replace(ENOUGH, failure=replace(LOST, minutes_ago=14.5)), "cooling down for less than a minute"),
        (replace(ENOUGH, failure=replace(LOST, minutes_ago=15)), None),
        (replace(FEW, new_clips=0, failure=LOST), "cooling down for 12 min after run 7: out of memory"),
        (replace(FEW, new_clips=0, failure=replace(LOST, minutes_ago=15)), None),
        (replace(ENOUGH, failure=LOST, asked=True), None),
        (replace(ENOUGH, failure=replace(LOST, minutes_ago=20, in_a_row=2)), "cooling down for 10 min"),
        (replace(ENOUGH, active=ActiveRun(7, "host-1", abandoned=False)), "run 7 is under way on host-1"),
        (replace(ENOUGH, active=ActiveRun(7, "host-1", abandoned=False), asked=True), "run 7 is under way"),
        (replace(FEW, active=ActiveRun(7, "host-1", abandoned=True)), None),
    ],
)
def test_train(training: Training, why: str | None) -> None:
    said = why_not_train(snapshot(training), POLICY)
    commands = list(train(snapshot(training), POLICY))
    if why is None:
        assert said is None
        assert [type(command) for command in commands] == [Train]
    else:
        assert said is not None
        assert why in said
        assert commands == []


def test_the_command_carries_the_bar() -> None:
    """The database counts against it once more."""
    grown = replace(ENOUGH, new_clips=300, trained_clips=1000, trained_minutes=100)
    assert list(train(snapshot(grown), POLICY)) == [Train(bar_clips=250, bar_minutes=25.0)]


def test_what_a_failed_run_was_begun_for_is_tried_again() -> None:
    """Its corrections no longer count as new: the database lets it begin because that run is still the last."""
    failed = replace(FEW, new_clips=0, failure=replace(LOST, minutes_ago=15))
    assert [command.retry_of for command in train(snapshot(failed), POLICY) if isinstance(command, Train)] == [7]


def test_a_busy_lane_a_switch_and_an_observation_without_counting() -> None:
    assert "training or evaluating" in str(why_not_train(snapshot(ENOUGH, busy=frozenset({Lane.WORK})), POLICY))
    off = Policy(training=TrainingPolicy(enabled=False))
    assert "switched off" in str(why_not_train(snapshot(ENOUGH), off))
    assert "switched off" in str(why_not_train(snapshot(replace(ENOUGH, asked=True)), off))
    assert list(train(Snapshot(live=1, loaded=1, ready=0), POLICY)) == []


@pytest.mark.parametrize(
    ("hours", "inside", "outside"), [((22, 6), (22, 23, 0, 5), (6, 12, 21)), ((1, 5), (1, 4), (0, 5, 23))]
)
def test_hours(hours: tuple[int, int], inside: tuple[int, ...], outside: tuple[int, ...]) -> None:
    policy = Policy(training=TrainingPolicy(hours=hours))
    assert all(why_not_train(snapshot(ENOUGH, hour=hour), policy) is None for hour in inside)
    assert all("training begins" in str(why_not_train(snapshot(ENOUGH, hour=hour), policy)) for hour in outside)
    asked = replace(ENOUGH, asked=True)
    assert all(why_not_train(snapshot(asked, hour=hour), policy) is None for hour in outside)


def test_the_cooldown_doubles_up_to_a_day() -> None:
    waits = [cooldown_minutes(replace(LOST, in_a_row=n), POLICY.training) for n in (1, 2, 3, 8, 99)]
    assert waits == [15, 30, 60, 1440, 1440]
    at_once = TrainingPolicy(cooldown_minutes=0)
    assert [cooldown_minutes(replace(LOST, in_a_row=n), at_once) for n in (1, 2)] == [0.25, 0.5]  # no busy loop


def test_all_runs_together_cost_no_more_than_a_few_times_the_last() -> None:
    """A project that grows clip by clip to 20,000 corrections: with a bar that grows, the sum of what all runs train on
    is at most (1 + 1 / growth) times what there is in the end."""
    trained = total = runs = 0
    for corrected in range(1, 20_001):
        seen = Training(corrected - trained, 0, trained, 0, recordings=9, held_out=1)
        if corrected - trained >= bar(seen, POLICY.training)[0]:
            trained, total, runs = corrected, total + corrected, runs + 1
    assert total <= 5 * 20_000
    assert runs > 10


@pytest.mark.parametrize(
    ("live", "loaded", "commands"), [(2, 1, [Swap(2)]), (2, None, [Swap(2)]), (2, 2, []), (None, 1, [])]
)
def test_swap(live: int | None, loaded: int | None, commands: list[Command]) -> None:
    assert list(swap(Snapshot(live=live, loaded=loaded, ready=0), POLICY)) == commands


def test_corrections_are_counted_only_when_a_decision_asks() -> None:
    assert not needs_learning([ClipsChanged(), ClipsDrafted()])
    assert needs_learning([ClipsChanged(), SweepDue()])
    assert needs_learning([TrainingFailed()])
    assert set(DECISIONS[SweepDue]) >= LEARNING


def test_training_and_drafting_go_on_beside_each_other() -> None:
    both = replace(snapshot(ENOUGH), ready=5)
    while_drafting = replace(both, busy=frozenset({Lane.DRAFT}))
    while_training = replace(both, busy=frozenset({Lane.WORK}), learning=None)
    assert [type(command).__name__ for command in handle([SweepDue()], while_drafting, POLICY)] == ["Train"]
    assert [type(command).__name__ for command in handle([SweepDue()], while_training, POLICY)] == ["Draft"]
