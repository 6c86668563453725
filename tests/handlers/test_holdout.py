"""A recording never changes sides: not with growth, not with order, not on another machine."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.holdout import assign, least, place

ROUNDS = 50
NAMES = st.one_of(st.text(min_size=1, max_size=12), st.uuids().map(str), st.integers(0, 9).map("tape_{}.mp3".format))
SHARES = st.floats(0.01, 0.99)


@settings(max_examples=100)
@given(share=SHARES, rounds=st.lists(st.lists(NAMES, max_size=5), min_size=ROUNDS, max_size=ROUNDS), seed=st.integers())
def test_over_50_rounds_of_growth_no_recording_changes_sides(share: float, rounds: list[list[str]], seed: int) -> None:
    """As the loop uses it: what one round decides is stored, and the next round sees all recordings again."""
    rng = Random(seed)
    decided: dict[str, bool] = {}
    seen: set[str] = set()
    first_side: dict[str, bool] = {}
    for arrivals in rounds:
        seen.update(arrivals)
        order = rng.sample(sorted(seen), len(seen))
        before = dict(decided)
        new = assign(decided, order, share)
        assert decided == before
        assert not new.keys() & decided.keys()
        assert new == assign(dict(reversed(decided.items())), reversed(order + order), share)
        decided |= new
        for recording, side in decided.items():
            assert first_side.setdefault(recording, side) is side
        train, held_out = ({r for r, s in decided.items() if s is side} for side in (False, True))
        assert not train & held_out
        if len(seen) >= 2:
            assert train | held_out == seen
            assert train
            assert held_out
        else:
            assert not decided


def test_the_hash_is_what_it_was_when_the_first_side_was_stored() -> None:
    """Sides of recordings that are not stored yet must not depend on the version of this program."""
    assert place("tape.mp3") == 0.185934203034833
    assert place("Filazantsara — toko é.wav") == 0.8387656981202127


@given(NAMES)
def test_one_recording_is_not_decided_until_there_is_another(name: str) -> None:
    assert assign({}, [name], 0.15) == {}
    assert assign({}, [name, name], 0.99) == {}
    assert assign({name: True}, [name], 0.15) == {}
    assert assign({}, [], 0.15) == {}


@given(st.sets(NAMES, min_size=2, max_size=12))
def test_the_lowest_are_held_out_where_too_few_would_be_and_the_highest_trains_where_all_would_be_held_out(
    names: set[str],
) -> None:
    inwards = sorted(names, key=lambda name: (place(name), name))
    assert assign({}, names, 0.0) == {name: name in inwards[: least(len(names))] for name in names}
    assert assign({}, names, 1.0) == {name: name != inwards[-1] for name in names}


def test_a_verdict_soon_rests_on_several_recordings() -> None:
    """And half of them at most are kept from training for it."""
    assert [least(count) for count in range(2, 13)] == [1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3]
    assert all(least(count) <= count / 2 for count in range(2, 100))


@given(NAMES, NAMES, SHARES)
def test_what_is_decided_leaves_the_newcomer_the_other_side(old: str, new: str, share: float) -> None:
    if old != new:
        assert assign({old: False}, [old, new], share) == {new: True}
        assert assign({old: True}, [old, new], share) == {new: False}


def test_the_share_of_many_recordings_is_what_was_asked_for() -> None:
    names = [f"recording {i}.mp3" for i in range(20_000)]
    for share in (0.05, 0.15, 0.5):
        held_out = sum(assign({}, names, share).values())
        assert held_out / len(names) == pytest.approx(share, abs=0.01)
