"""Do people change less in the drafts than before?

The judge hears held-out recordings; this is what people really did. Versions draft different clips, so recordings are
what is compared, and a difference counts only beyond what recordings differ anyway.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from handlers.commands import Command, Lane, RollBack
from handlers.policy import Policy
from handlers.snapshot import EditRates, EditSums, Snapshot

MIN_CLIPS = 30
MIN_RECORDINGS = 5
"""Of either version. With fewer, how much recordings differ is itself a guess."""
BEYOND_CHANCE = 2.5
"""Standard errors. More than the 1.86 of a single look (95 %, Student's t of five recordings each): daemons look again
and again. Simulated with two alike versions, looks at every tenth clip of forty recordings: 2.5 % are found worse."""


@dataclass(frozen=True, slots=True)
class Change:
    """Of the share of words that people changed, from the version before to the live one."""

    now: float
    then: float
    error: float
    """Standard error of their difference."""

    @property
    def worse(self) -> bool:
        """Whether people change more, beyond chance."""
        return self.now - self.then > BEYOND_CHANCE * self.error

    @property
    def better(self) -> bool:
        """Whether people change less, beyond chance."""
        return self.then - self.now > BEYOND_CHANCE * self.error


def change(rates: EditRates) -> Change | None:
    """None while either version has too few corrections, or of too few recordings."""
    if rates.now is None or rates.then is None or not (_enough(rates.now) and _enough(rates.then)):
        return None
    return Change(_rate(rates.now), _rate(rates.then), math.sqrt(_variance(rates.now) + _variance(rates.then)))


def roll_back(snapshot: Snapshot, policy: Policy) -> Iterable[Command]:
    """Go back to the version before, where that is wanted. Once: what a roll-back made live is left alone."""
    if why_not_roll_back(snapshot, policy) is None and snapshot.learning and snapshot.learning.edits:
        rates = snapshot.learning.edits
        yield RollBack(rates.version, told(rates))


def why_not_roll_back(snapshot: Snapshot, policy: Policy) -> str | None:
    """What keeps the daemon from going back to the version before, in words; None when nothing does."""
    rates = snapshot.learning.edits if snapshot.learning else None
    if rates is None:
        return "no version was live before this one"
    found = change(rates)
    if found is None:
        return f"too few corrections to tell: {told(rates)}"
    if not found.worse:
        return told(rates)
    reason = _in_the_way(rates, snapshot, policy)
    return f"{told(rates)}; {reason}" if reason else None


def _in_the_way(rates: EditRates, snapshot: Snapshot, policy: Policy) -> str | None:
    if not policy.promotion.roll_back:
        return '`ambara models rollback` goes back, or rollback = "auto" under [promotion]'
    if rates.chosen:
        return f"a person or a roll-back made version {rates.version} live, so it stays"
    if not rates.here:
        return f"the folder of version {rates.before} is not on this host"
    return "this daemon is training or evaluating" if Lane.WORK in snapshot.busy else None


def told(rates: EditRates) -> str:
    """The figures, for a person."""
    shares = (
        "nobody has corrected one yet"
        if sums is None
        else f"{_rate(sums) * 100:.1f} % of words changed in {_count(sums.clips, 'clip')} of "
        f"{_count(sums.recordings, 'recording')}"
        for sums in (rates.now, rates.then)
    )
    figures = "drafts of version {}: {}; of version {} before it: {}".format(
        *(part for pair in zip((rates.version, rates.before), shares, strict=True) for part in pair)
    )
    found = change(rates)
    if found is None:
        return figures
    verdict = (
        "worse beyond chance" if found.worse else "better beyond chance" if found.better else "no clear difference"
    )
    return f"{verdict}: {figures}"


def _enough(sums: EditSums) -> bool:
    return sums.clips >= MIN_CLIPS and sums.recordings >= MIN_RECORDINGS and sums.words > 0


def _rate(sums: EditSums) -> float:
    return sums.edits / sums.words if sums.words else 0.0


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _variance(sums: EditSums) -> float:
    """Of the ratio of two sums over clusters, linearised (Cochran, Sampling Techniques, 1977, 6.3)."""
    rate, many = _rate(sums), sums.recordings
    residual = sums.edits_edits - 2 * rate * sums.words_edits + rate * rate * sums.words_words
    return max(0.0, residual) * many / (many - 1) / sums.words**2
