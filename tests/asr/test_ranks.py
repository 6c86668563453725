"""How several processes share a step: together they do what one does alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import chain

import pytest
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler

from daemon.asr import ranks
from daemon.asr.training import TrainingError
from daemon.asr.whisper.arguments import Batching
from daemon.asr.whisper.buckets import BucketSampler

WHOLE = Batching(4, 2)


def steps(lengths: Sequence[tuple[int, int]], processes: int, epoch: int) -> list[list[list[int]]]:
    """For each process what it is given for each step, as the trainer and accelerate deal it out."""
    batching = WHOLE.shared(processes)
    multiple = batching.size * processes if processes > 1 else 1
    sampler = BucketSampler(lengths, WHOLE.step, seed=5, multiple=multiple)
    sampler.set_epoch(epoch)
    batches = BatchSampler(sampler, batching.size, drop_last=False)
    given = []
    for rank in range(processes):
        own: list[list[int]] = list(BatchSamplerShard(batches, processes, rank) if processes > 1 else batches)
        starts = range(0, len(own), batching.accumulation)
        given.append([list(chain(*own[at : at + batching.accumulation])) for at in starts])
    return given


@pytest.mark.parametrize("processes", [2, 4, 8])
@pytest.mark.parametrize("clips", [1, 7, 8, 17, 100])
def test_each_step_holds_the_clips_that_it_holds_for_one_process(clips: int, processes: int) -> None:
    draw = random.Random(clips)
    lengths = [(100 * draw.randint(1, 3), draw.randint(5, 60)) for _ in range(clips)]
    for epoch in range(2):
        (alone,) = steps(lengths, 1, epoch)
        together = steps(lengths, processes, epoch)
        assert {len(given) for given in together} == {len(alone)}
        for at, step in enumerate(alone):
            shares = [given[at] for given in together]
            assert len({len(share) for share in shares}) == 1, "one would wait for the others for ever"
            assert sorted(clip for share in shares for clip in share if clip < clips) == sorted(step)
            assert at == len(alone) - 1 or len(shares[0]) == WHOLE.step // processes, "filled up before the end"


def test_a_process_has_no_more_at_once_than_one_alone() -> None:
    shares = {
        (Batching(4, 2), 2): Batching(4, 1),
        (Batching(4, 2), 4): Batching(2, 1),
        (Batching(4, 4), 2): Batching(4, 2),
        (Batching(16, 1), 2): Batching(8, 1),
        (Batching(6, 2), 3): Batching(4, 1),
        (Batching(5, 4), 2): Batching(5, 2),
        (Batching(7, 3), 1): Batching(7, 3),
    }
    assert {asked: asked[0].shared(asked[1]) for asked in shares} == shares


def test_a_step_that_cannot_be_shared_evenly_is_refused() -> None:
    with pytest.raises(TrainingError) as caught:
        Batching(4, 2).shared(3)
    assert caught.value.reason == "settings"
    assert str(caught.value) == (
        "A step of 8 clips (batch_size times gradient_accumulation) cannot be shared evenly by 3 processes: "
        "choose a gradient_accumulation that 3 divides."
    )


def test_one_alone_is_the_first_and_waits_for_nobody() -> None:
    ranks.join("cpu")
    ranks.wait()
    assert (ranks.count(), ranks.rank(), ranks.agree("mine")) == (1, 0, "mine")
