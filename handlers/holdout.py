"""Which recordings are held out. A recording never changes sides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256


def assign(decided: Mapping[str, bool], recordings: Iterable[str], share: float) -> dict[str, bool]:
    """Sides (true: held out) for those of `recordings` that have none yet. What is decided stays.

    About `share` of all recordings are held out, by a hash of their names: the answer depends on no order, no clock and
    no machine. While there are few, more than that are: one of two, two of four, three of nine, because a verdict over
    a single recording says nothing about the next. One recording alone gets no side: whichever it got, the other side
    would be empty. At least one trains, unless what was decided before leaves no choice.
    """
    places = {recording: place(recording) for recording in recordings if recording not in decided}
    count = len(decided) + len(places)
    if not places or count < 2:
        return {}
    sides = {recording: at < share for recording, at in places.items()}
    outwards = sorted(places, key=lambda recording: (places[recording], recording))
    missing = least(count) - sum((*decided.values(), *sides.values()))
    for recording in [each for each in outwards if not sides[each]][: max(0, missing)]:
        sides[recording] = True
    if all((*decided.values(), *sides.values())):
        sides[outwards[-1]] = False
    return sides


def least(recordings: int) -> int:
    """How many recordings are held out at least, of so many."""
    return max(min(2, recordings // 2), min(3, recordings // 3))


def place(recording: str) -> float:
    """Where a recording stands between 0 and 1."""
    return int.from_bytes(sha256(recording.encode()).digest()[:6], "big") / 2**48
