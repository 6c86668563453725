"""Is the candidate really better?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from handlers.commands import Command, Evaluate, Lane, Promote, Reject
from handlers.policy import Policy, PromotionPolicy
from handlers.snapshot import Candidate, Comparison, Guard, Snapshot


class Outcome(StrEnum):
    """Of a comparison."""

    BETTER = "better"
    WORSE = "worse"
    NOT_BETTER = "not-better"
    TOO_LITTLE = "too-little"


_SAID = {
    Outcome.BETTER: "better",
    Outcome.WORSE: "worse",
    Outcome.NOT_BETTER: "not better",
    Outcome.TOO_LITTLE: "too little data to tell",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison amounts to."""

    outcome: Outcome
    words: str
    """For a person, with the figures; begins with the outcome."""


def evaluate(snapshot: Snapshot, policy: Policy) -> Iterable[Command]:
    """Compare a candidate with the live version, and again when another version has gone live since."""
    candidate = _candidate(snapshot)
    if candidate and snapshot.live is not None and why_not_evaluate(snapshot, policy) is None:
        yield Evaluate(version=candidate.version, against=snapshot.live)


def promote(snapshot: Snapshot, policy: Policy) -> Iterable[Command]:
    """Make a better candidate live and turn down one that is not. Too little data decides nothing: it rests."""
    candidate = _candidate(snapshot)
    if not candidate or not candidate.comparison or _not_judged(snapshot, candidate):
        return
    verdict = judge(candidate.comparison, policy.promotion)
    if verdict.outcome is Outcome.BETTER:
        yield Promote(version=candidate.version, against=candidate.comparison.against, reason=verdict.words)
    elif verdict.outcome is not Outcome.TOO_LITTLE:
        yield Reject(version=candidate.version, reason=verdict.words)


def why_not_evaluate(snapshot: Snapshot, _policy: Policy) -> str | None:
    """What keeps the daemon from comparing a candidate, in words; None when nothing does."""
    candidate = _candidate(snapshot)
    if candidate is None:
        return _no_candidate(snapshot)
    if (reason := _not_at_hand(snapshot, candidate)) is not None:
        return reason
    if candidate.comparison and candidate.comparison.against == snapshot.live:
        return f"version {candidate.version} has been compared with version {snapshot.live}"
    return None


def why_not_promote(snapshot: Snapshot, policy: Policy) -> str | None:
    """What keeps the candidate from going live, in words; None when nothing does."""
    candidate = _candidate(snapshot)
    if candidate is None:
        return _no_candidate(snapshot)
    if (reason := _not_judged(snapshot, candidate)) is not None or candidate.comparison is None:
        return reason
    verdict = judge(candidate.comparison, policy.promotion)
    if verdict.outcome is Outcome.BETTER:
        return None
    rests = " (it rests until a newer candidate takes its place or a person promotes it)"
    return f"version {candidate.version}: {verdict.words}{rests if verdict.outcome is Outcome.TOO_LITTLE else ''}"


def judge(comparison: Comparison, policy: PromotionPolicy) -> Verdict:
    """Better only with enough clips and recordings, the least gain that is wanted, certainty, and no guard broken."""
    gain = comparison.live_wer - comparison.candidate_wer
    sure = f"with {comparison.confidence:.0%} confidence".replace("%", " %")
    between = f"gain between {_percent(comparison.gain_low)} and {_percent(comparison.gain_high)}, each {sure}"
    if comparison.clips < policy.min_clips or comparison.recordings < policy.min_recordings:
        return _verdict(
            Outcome.TOO_LITTLE,
            comparison,
            f"and a verdict needs {policy.min_clips} clips of {policy.min_recordings} recordings",
        )
    for guard in comparison.guards:
        if not guard.candidate <= guard.live + guard.tolerance:  # written so that what is no number fails, too
            return Verdict(Outcome.WORSE, f"{_SAID[Outcome.WORSE]}: {_broken(guard)}")
    if gain >= policy.min_gain and comparison.gain_low > 0:
        return _verdict(Outcome.BETTER, comparison, f"gain at least {_percent(comparison.gain_low)} {sure}")
    if comparison.gain_high < 0:
        return _verdict(Outcome.WORSE, comparison, f"loss at least {_percent(-comparison.gain_high)} {sure}")
    if gain > 0 >= comparison.gain_low and comparison.gain_high >= policy.min_gain:
        return _verdict(Outcome.TOO_LITTLE, comparison, between)
    return _verdict(Outcome.NOT_BETTER, comparison, f"{between}, and {_percent(policy.min_gain)} is wanted")


def _verdict(outcome: Outcome, comparison: Comparison, certainty: str) -> Verdict:
    rates = f"word error rate {_percent(comparison.live_wer)} -> {_percent(comparison.candidate_wer)}"
    clips = f"{_count(comparison.clips, 'held-out clip')} of {_count(comparison.recordings, 'recording')}"
    return Verdict(outcome, f"{_SAID[outcome]}: {rates} on {clips}, {certainty}")


def _broken(guard: Guard) -> str:
    most = f"and at most {_percent(guard.live + guard.tolerance)} is let pass"
    return f"{guard.name} {_percent(guard.live)} -> {_percent(guard.candidate)}, {most}"


def _candidate(snapshot: Snapshot) -> Candidate | None:
    return snapshot.learning.candidate if snapshot.learning else None


def _no_candidate(snapshot: Snapshot) -> str:
    return "there is no candidate: training makes one" if snapshot.learning else "nobody has looked for candidates yet"


def _not_at_hand(snapshot: Snapshot, candidate: Candidate) -> str | None:
    if snapshot.live is None:
        return "no model version is live yet"
    if not candidate.here:
        return f"the folder of version {candidate.version} is not on this host"
    if snapshot.loaded != snapshot.live:  # nothing to compare with; an attempt would only keep training waiting
        return f"version {snapshot.live} is live, and this daemon has version {snapshot.loaded} loaded"
    if Lane.WORK in snapshot.busy:
        return "this daemon is training or evaluating"
    return None


def _not_judged(snapshot: Snapshot, candidate: Candidate) -> str | None:
    version, comparison = candidate.version, candidate.comparison
    if (reason := _not_at_hand(snapshot, candidate)) is not None:
        return reason
    if comparison is None:
        return f"version {version} has not been compared with version {snapshot.live} yet"
    if comparison.against != snapshot.live:
        return f"version {version} was compared with version {comparison.against}, and {snapshot.live} is live now"
    return None


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _percent(rate: float) -> str:
    return f"{rate * 100:.1f} %"
