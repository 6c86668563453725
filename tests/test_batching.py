"""Batches by length and budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daemon.batching import plan_batches

LENGTHS = st.lists(st.floats(0.01, 100), max_size=60)


@given(LENGTHS, st.integers(1, 16), st.floats(1, 500))
def test_every_clip_is_in_exactly_one_batch_within_the_limits(
    lengths: list[float], max_clips: int, max_padded: float
) -> None:
    batches = plan_batches(lengths, max_clips=max_clips, max_padded=max_padded)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= max_clips
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= max_padded


@given(LENGTHS, st.integers(1, 16))
def test_the_first_clip_is_in_the_first_batch(lengths: list[float], max_clips: int) -> None:
    batches = plan_batches(lengths, max_clips=max_clips, max_padded=240)
    assert not lengths or 0 in batches[0]
    assert [batch[0] for batch in batches] == sorted(batch[0] for batch in batches)


def test_similar_lengths_go_together() -> None:
    assert plan_batches([30, 2, 29, 3], max_clips=2, max_padded=60) == [[0, 2], [1, 3]]
    assert plan_batches([30, 2, 29, 3], max_clips=4, max_padded=60) == [[0, 2], [1, 3]]
    assert plan_batches([1, 1, 1], max_clips=16, max_padded=2) == [[0, 1], [2]]
