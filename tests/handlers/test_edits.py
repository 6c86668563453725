"""Whether people change less in the drafts than before, and what becomes of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from handlers import handle
from handlers.commands import Lane, RollBack
from handlers.edits import MIN_CLIPS, MIN_RECORDINGS, change, told, why_not_roll_back
from handlers.events import SweepDue
from handlers.policy import Policy, PromotionPolicy
from handlers.snapshot import EditRates, EditSums, Learning, Snapshot, Training

AUTO = Policy(promotion=PromotionPolicy(roll_back=True))
BY_HAND = Policy()


def sums(recordings: Sequence[tuple[int, int]], clips: int = 60) -> EditSums:
    """Of (words, edits) for each recording."""
    return EditSums(
        clips=clips,
        recordings=len(recordings),
        words=sum(words for words, _ in recordings),
        edits=sum(edits for _, edits in recordings),
        words_words=sum(words * words for words, _ in recordings),
        words_edits=sum(words * edits for words, edits in recordings),
        edits_edits=sum(edits * edits for _, edits in recordings),
    )


FEW = sums([(100, 8), (120, 12), (90, 9), (110, 13), (100, 10)])
MANY = sums([(100, 28), (120, 32), (90, 29), (110, 33), (100, 30)])
WORSE = EditRates(version=7, before=6, chosen=False, here=True, now=MANY, then=FEW)


def seen(rates: EditRates | None, *busy: Lane) -> Snapshot:
    training = Training(0, 0, 100, 20, 6, 2)
    return Snapshot(7, 7, 0, frozenset(busy), Learning(training, None, 12, edits=rates))


def commands(rates: EditRates | None, policy: Policy, *busy: Lane) -> list[object]:
    return [each for each in handle([SweepDue()], seen(rates, *busy), policy) if isinstance(each, RollBack)]


def test_it_goes_back_where_that_is_wanted() -> None:
    assert why_not_roll_back(seen(WORSE), AUTO) is None
    (command,) = commands(WORSE, AUTO)
    assert command == RollBack(7, told(WORSE))
    assert told(WORSE) == (
        "worse beyond chance: drafts of version 7: 29.2 % of words changed in 60 clips of 5 recordings; "
        "of version 6 before it: 10.0 % of words changed in 60 clips of 5 recordings"
    )


@pytest.mark.parametrize(
    ("rates", "policy", "busy", "why"),
    [
        (None, AUTO, (), "no version was live before"),
        (WORSE, BY_HAND, (), "`ambara models rollback` goes back"),
        (replace(WORSE, chosen=True), AUTO, (), "so it stays"),
        (replace(WORSE, here=False), AUTO, (), "the folder of version 6 is not on this host"),
        (WORSE, AUTO, (Lane.WORK,), "training or evaluating"),
        (replace(WORSE, now=FEW, then=MANY), AUTO, (), "better beyond chance"),
        (replace(WORSE, then=MANY), AUTO, (), "no clear difference"),
        (replace(WORSE, now=None), AUTO, (), "drafts of version 7: nobody has corrected one yet"),
        (replace(WORSE, then=None), AUTO, (), "of version 6 before it: nobody"),
        (replace(WORSE, now=replace(MANY, clips=MIN_CLIPS - 1)), AUTO, (), "too few corrections to tell"),
        (replace(WORSE, now=sums([(100, 30)] * (MIN_RECORDINGS - 1))), AUTO, (), "too few corrections to tell"),
        (replace(WORSE, now=sums([(0, 0)] * MIN_RECORDINGS)), AUTO, (), "too few corrections to tell"),
    ],
)
def test_it_stays_and_says_why(rates: EditRates | None, policy: Policy, busy: tuple[Lane, ...], why: str) -> None:
    assert commands(rates, policy, *busy) == []
    assert why in (why_not_roll_back(seen(rates, *busy), policy) or "")


def test_recordings_that_differ_among_themselves_are_no_difference_of_versions() -> None:
    """The same totals: in one case each recording says so, in the other two hard recordings do."""
    hard = sums([(100, 90), (120, 58), (90, 1), (110, 2), (100, 1)])
    assert hard.edits == MANY.edits
    found = change(replace(WORSE, now=hard))
    assert found is not None
    assert not found.worse


def test_its_standard_error_is_that_of_a_simulation() -> None:
    dice = random.Random(7)

    def drawn() -> EditSums:
        words = [dice.randint(50, 200) for _ in range(30)]
        return sums([(each, round(each * min(1, max(0, dice.gauss(0.2, 0.08))))) for each in words])

    found = [change(replace(WORSE, now=drawn(), then=drawn())) for _ in range(2000)]
    changes = [each for each in found if each]
    assert len(changes) == len(found)
    spread = (sum((each.now - each.then) ** 2 for each in changes) / len(changes)) ** 0.5
    said = (sum(each.error**2 for each in changes) / len(changes)) ** 0.5
    assert said == pytest.approx(spread, rel=0.08)
