"""The verdict as a table, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from handlers.commands import Command, Evaluate, Lane, Promote, Reject
from handlers.policy import Policy, PromotionPolicy
from handlers.promotion import Outcome, evaluate, judge, promote, why_not_evaluate, why_not_promote
from handlers.snapshot import Candidate, Comparison, Guard, Learning, Snapshot, Training

RULES = PromotionPolicy(min_gain=0.01, min_clips=20, min_recordings=2)
POLICY = Policy(promotion=RULES)
CLEAR = Comparison(
    against=3,
    clips=48,
    recordings=4,
    words=800,
    live_wer=0.621,
    candidate_wer=0.073,
    gain_low=0.49,
    gain_high=0.606,
    confidence=0.95,
)
TRAINING = Training(0, 0, 100, 20, 6, 2)
NAN = float("nan")


def between(live: float, candidate: float, low: float, high: float) -> Comparison:
    return replace(CLEAR, live_wer=live, candidate_wer=candidate, gain_low=low, gain_high=high)


@pytest.mark.parametrize(
    ("comparison", "outcome"),
    [
        (CLEAR, Outcome.BETTER),
        (between(0.30, 0.29, 0.001, 0.02), Outcome.BETTER),
        (between(0.30, 0.295, 0.001, 0.009), Outcome.NOT_BETTER),  # surely better, by less than is wanted
        (between(0.30, 0.295, 0.001, 0.02), Outcome.NOT_BETTER),
        (between(0.30, 0.295, -0.01, 0.02), Outcome.TOO_LITTLE),  # the gain that is wanted may be there
        (between(0.30, 0.295, -0.001, 0.009), Outcome.NOT_BETTER),
        (between(0.30, 0.20, 0.0, 0.20), Outcome.TOO_LITTLE),  # large, and not sure
        (between(0.30, 0.30, 0.0, 0.0), Outcome.NOT_BETTER),  # the same texts
        (between(0.30, 0.31, -0.04, 0.02), Outcome.NOT_BETTER),
        (between(0.30, 0.40, -0.15, -0.05), Outcome.WORSE),
        (between(0.30, NAN, NAN, NAN), Outcome.NOT_BETTER),
        (replace(CLEAR, clips=19), Outcome.TOO_LITTLE),
        (replace(CLEAR, clips=20, recordings=2), Outcome.BETTER),
        (replace(CLEAR, recordings=1), Outcome.TOO_LITTLE),
        (replace(between(0.30, 0.90, -0.8, -0.4), clips=3), Outcome.TOO_LITTLE),
        (replace(CLEAR, guards=(Guard("loops", 0.0, 0.02, 0.02),)), Outcome.BETTER),
        (replace(CLEAR, guards=(Guard("loops", 0.0, 0.021, 0.02),)), Outcome.WORSE),
        (replace(CLEAR, guards=(Guard("a", 0.5, 0.1, 0.0), Guard("b", 0.0, NAN, 0.1))), Outcome.WORSE),
        (replace(CLEAR, clips=3, guards=(Guard("loops", 0.0, 1.0, 0.02),)), Outcome.TOO_LITTLE),
    ],
)
def test_judge(comparison: Comparison, outcome: Outcome) -> None:
    assert judge(comparison, RULES).outcome is outcome


@pytest.mark.parametrize(
    ("comparison", "words"),
    [
        (
            CLEAR,
            (
                "better: word error rate 62.1 % -> 7.3 % on 48 held-out clips of 4 recordings, "
                "gain at least 49.0 % with 95 % confidence"
            ),
        ),
        (
            between(0.30, 0.40, -0.15, -0.05),
            (
                "worse: word error rate 30.0 % -> 40.0 % on 48 held-out clips of 4 recordings, "
                "loss at least 5.0 % with 95 % confidence"
            ),
        ),
        (
            between(0.30, 0.31, -0.04, 0.02),
            (
                "not better: word error rate 30.0 % -> 31.0 % on 48 held-out clips of 4 recordings, "
                "gain between -4.0 % and 2.0 %, each with 95 % confidence, and 1.0 % is wanted"
            ),
        ),
        (
            replace(CLEAR, clips=7, recordings=1),
            (
                "too little data to tell: word error rate 62.1 % -> 7.3 % on 7 held-out clips of 1 recording, "
                "and a verdict needs 20 clips of 2 recordings"
            ),
        ),
        (
            between(0.30, 0.25, -0.02, 0.12),
            (
                "too little data to tell: word error rate 30.0 % -> 25.0 % on 48 held-out clips of 4 recordings, "
                "gain between -2.0 % and 12.0 %, each with 95 % confidence"
            ),
        ),
        (
            replace(CLEAR, guards=(Guard("invented words on silence and noise", 0.0, 0.5, 0.125),)),
            "worse: invented words on silence and noise 0.0 % -> 50.0 %, and at most 12.5 % is let pass",
        ),
    ],
)
def test_a_verdict_says_its_figures(comparison: Comparison, words: str) -> None:
    assert judge(comparison, RULES).words == words


def test_the_policy_is_what_it_is_judged_by() -> None:
    close = between(0.30, 0.27, 0.01, 0.05)
    assert judge(close, RULES).outcome is Outcome.BETTER
    assert judge(close, replace(RULES, min_gain=0.05)).outcome is Outcome.NOT_BETTER
    assert judge(close, replace(RULES, min_clips=49)).outcome is Outcome.TOO_LITTLE
    assert judge(close, replace(RULES, min_recordings=5)).outcome is Outcome.TOO_LITTLE


def about(
    comparison: Comparison | None, *, here: bool = True, live: int | None = 3, busy: Lane | None = None
) -> Snapshot:
    candidate = Candidate(version=7, here=here, comparison=comparison)
    lanes = frozenset({busy} if busy else ())
    return Snapshot(live=live, loaded=live, ready=0, busy=lanes, learning=Learning(TRAINING, candidate, hour=12))


WORSE = between(0.30, 0.40, -0.15, -0.05)
OPEN = between(0.30, 0.25, -0.02, 0.12)
RESTS = " (it rests until a newer candidate takes its place or a person promotes it)"


@pytest.mark.parametrize(
    ("snapshot", "evaluated", "promoted", "why"),
    [
        (about(None), [Evaluate(7, against=3)], [], "version 7 has not been compared with version 3 yet"),
        (about(CLEAR), [], [Promote(7, against=3, reason=judge(CLEAR, RULES).words)], None),
        (about(WORSE), [], [Reject(7, reason=judge(WORSE, RULES).words)], f"version 7: {judge(WORSE, RULES).words}"),
        (about(OPEN), [], [], f"version 7: {judge(OPEN, RULES).words}{RESTS}"),
        (
            about(CLEAR, live=5),  # another version went live since
            [Evaluate(7, against=5)],
            [],
            "version 7 was compared with version 3, and 5 is live now",
        ),
        (about(OPEN, live=5), [Evaluate(7, against=5)], [], "version 7 was compared with version 3, and 5 is live now"),
        (about(CLEAR, here=False), [], [], "the folder of version 7 is not on this host"),
        (about(None, here=False), [], [], "the folder of version 7 is not on this host"),
        *(
            (replace(about(known), loaded=1), [], [], "version 3 is live, and this daemon has version 1 loaded")
            for known in (None, CLEAR, WORSE)
        ),
        (about(CLEAR, busy=Lane.WORK), [], [], "this daemon is training or evaluating"),
        (about(None, busy=Lane.WORK), [], [], "this daemon is training or evaluating"),
        (about(CLEAR, live=None), [], [], "no model version is live yet"),
        (about(None, live=None), [], [], "no model version is live yet"),
        (
            Snapshot(live=3, loaded=3, ready=0, learning=Learning(TRAINING, None, hour=12)),
            [],
            [],
            "there is no candidate: training makes one",
        ),
        (Snapshot(live=3, loaded=3, ready=0), [], [], "nobody has looked for candidates yet"),
    ],
)
def test_decisions(snapshot: Snapshot, evaluated: list[Command], promoted: list[Command], why: str | None) -> None:
    """What is decided, and what `why` says, agree."""
    assert list(evaluate(snapshot, POLICY)) == evaluated
    assert list(promote(snapshot, POLICY)) == promoted
    assert why_not_promote(snapshot, POLICY) == why
    assert (why_not_evaluate(snapshot, POLICY) is None) == bool(evaluated)


def test_drafting_does_not_hold_up_a_promotion() -> None:
    assert list(promote(about(CLEAR, busy=Lane.DRAFT), POLICY))


def test_a_candidate_that_was_compared_is_not_compared_again() -> None:
    assert why_not_evaluate(about(OPEN), POLICY) == "version 7 has been compared with version 3"
