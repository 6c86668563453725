"""Which versions' weights are kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.learning.ports import Version
from daemon.learning.retention import chosen, further, keep, previous


def version(number: int, stage: str, live_seq: int | None = None, **changes: Any) -> Version:
    plain = {"name": f"trained-{number:04}", "fingerprint": "f", "kind": "trained", "pinned": False, "reason": None}
    return Version(number, **(plain | {"stage": stage, "live_seq": live_seq} | changes))


def test_what_serves_and_what_a_roll_back_returns_to() -> None:
    versions = [version(1, "retired", 1), version(2, "retired", 2), version(3, "rejected"), version(4, "live", 3)]
    assert keep(versions) == {2, 4}


def test_the_one_before_is_the_last_to_go_live_and_not_the_highest_number() -> None:
    """Version 1 was live again after 3: live now is 4, and before it was 1."""
    versions = [version(1, "retired", 4), version(2, "retired", 2), version(3, "rejected", 3), version(4, "live", 5)]
    assert keep(versions) == {1, 4}


def test_what_is_in_the_making_and_what_a_person_pinned() -> None:
    versions = [
        version(1, "rejected", 1, pinned=True),
        version(2, "retired", 2, pinned=True),
        version(3, "retired", 3),
        version(4, "retired", 4),
        version(5, "live", 5),
        version(6, "candidate"),
        version(7, "rejected"),
        version(8, "training"),
    ]
    assert keep(versions) == {1, 2, 4, 5, 6, 8}


def test_nothing_was_ever_live() -> None:
    assert keep([]) == set()
    assert keep([version(1, "retired"), version(2, "rejected")]) == set()


def test_the_others_are_ranked_by_who_would_want_them_back() -> None:
    """Two more roll-backs, then what was turned down last."""
    versions = [
        version(1, "retired", 1),
        version(2, "rejected", 2),
        version(3, "retired", 6),
        version(4, "rejected"),
        version(5, "retired", 4),
        version(6, "retired", 7),
        version(7, "live", 8),
        version(8, "candidate"),
        version(9, "rejected"),
    ]
    assert keep(versions) == {6, 7, 8}
    assert further(versions) == [3, 5, 1, 9, 4, 2]


def test_roll_backs_come_to_them_in_that_order() -> None:
    """What is kept for good measure is what the next roll-backs need, one after the other."""
    versions = [version(n, "retired", n) for n in range(1, 6)] + [version(6, "live", 6)]
    expected = further(versions)
    seen = []
    for step in range(7, 10):
        back = previous(versions)
        assert back is not None
        versions = [
            replace(each, stage="rejected")
            if each.stage == "live"
            else replace(each, stage="live", live_seq=step)
            if each.id == back.id
            else each
            for each in versions
        ]
        seen.append(back.id)
    assert seen == [5, *expected[:2]]


SEVEN = [version(n, "retired", n) for n in range(1, 7)] + [version(7, "live", 7)]
SIZES = dict.fromkeys(range(1, 8), 10)


@pytest.mark.parametrize(
    ("most", "limit", "stay"),
    [
        (0, 1000, {6, 7}),
        (2, 1000, {4, 5, 6, 7}),
        (9, 1000, {1, 2, 3, 4, 5, 6, 7}),
        (9, 45, {4, 5, 6, 7}),
        (9, 29, {6, 7}),
        (9, 0, {6, 7}),
    ],
)
def test_so_many_others_and_so_many_bytes(most: int, limit: float, stay: set[int]) -> None:
    """Whatever the settings say, what must stay stays."""
    assert chosen(SEVEN, set(), SIZES, most=most, limit=limit) == stay


def test_what_is_not_on_this_host_takes_no_place() -> None:
    assert chosen(SEVEN, set(), {3: 10, 7: 10}, most=1, limit=1000) == {3, 6, 7}


def test_what_is_in_use_stays_and_counts() -> None:
    assert chosen(SEVEN, {1}, SIZES, most=9, limit=35) == {1, 6, 7}


@given(
    stages=st.lists(st.sampled_from(["retired", "rejected", "candidate", "training"]), max_size=12),
    data=st.data(),
    most=st.integers(0, 5),
    limit=st.floats(0, 200),
)
def test_no_setting_and_no_size_takes_away_what_must_stay(
    stages: list[str], data: st.DataObject, most: int, limit: float
) -> None:
    seqs = data.draw(st.permutations(range(1, len(stages) + 2)))
    versions = [
        version(n, stage, seqs[n] if stage == "retired" else None, pinned=data.draw(st.booleans()))
        for n, stage in enumerate(stages, 1)
    ]
    versions.append(version(99, "live", len(stages) + 5))
    used = data.draw(st.sets(st.sampled_from([each.id for each in versions])))
    sizes = {each.id: data.draw(st.integers(1, 50)) for each in versions}
    stay = chosen(versions, used, sizes, most=most, limit=limit)
    back = previous(versions)
    assert stay >= used | keep(versions) | {99} | ({back.id} if back else set())
    assert stay >= {each.id for each in versions if each.pinned or each.stage in ("candidate", "training")}
    extra = stay - used - keep(versions)
    assert len(extra) <= most
    if extra:
        assert sum(sizes[number] for number in stay) <= limit
