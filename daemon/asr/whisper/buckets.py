"""The order in which clips are learned: windows and texts of about one length together, so that little is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

_STEPS_SORTED = 50
"""Steps' worth of clips that are sorted together at most."""


class BucketSampler(Sampler[int]):
    """Draws every clip once per epoch. The order depends on seed and epoch alone, so a training can be resumed."""

    def __init__(self, lengths: Sequence[tuple[int, int]], step_size: int, seed: int) -> None:
        """`lengths`: frames and tokens of each clip. `step_size`: clips per optimiser step, however many batches."""
        # Ranks, by frames first: the encoder and the attention to it cost most.
        self._lengths = np.unique(np.asarray(lengths).reshape(-1, 2), axis=0, return_inverse=True)[1].reshape(-1)
        self._step_size = step_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The trainer says which epoch comes next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        draw = np.random.default_rng((self._seed, self._epoch))
        order = draw.permutation(len(self._lengths))
        size = self._step_size
        together = size * max(1, min(_STEPS_SORTED, len(order) // (4 * size)))
        steps = []
        for start in range(0, len(order), together):
            near = order[start : start + together]
            near = near[np.argsort(-self._lengths[near], kind="stable")]
            steps += [near[at : at + size] for at in range(0, len(near), size)]
        whole, rest = [step for step in steps if len(step) == size], [step for step in steps if len(step) < size]
        shuffled = [whole[at] for at in draw.permutation(len(whole))]
        # What does not fit into memory had better show at once.
        shuffled.sort(key=lambda step: self._epoch > 0 or self._lengths[step].max() < self._lengths.max())
        for step in (*shuffled, *rest):
            yield from step.tolist()
