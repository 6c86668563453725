"""The order in which clips are learned: windows and texts of about one length together, so that little is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from daemon.asr.whisper.collator import IGNORED

_STEPS_SORTED = 50
"""Steps' worth of clips that are sorted together at most."""


class BucketSampler(Sampler[int]):
    """Draws every clip once per epoch. The order depends on seed and epoch alone, so a training can be resumed.

    Processes that train together draw the same, and each takes its batches of it: the first one the first batch, the
    next one the second, and so on.
    """

    def __init__(self, lengths: Sequence[tuple[int, int]], step_size: int, seed: int, *, multiple: int = 1) -> None:
        """`lengths`: frames and tokens of each clip. `step_size`: clips per optimiser step, however many batches.

        The epoch is filled up to a `multiple` of clips with the number after the last clip's: see `Filled`.
        """
        # Ranks, by frames first: the encoder and the attention to it cost most.
        self._lengths = np.unique(np.asarray(lengths).reshape(-1, 2), axis=0, return_inverse=True)[1].reshape(-1)
        self._step_size = step_size
        self._seed = seed
        self._epoch = 0
        self._filling = -len(lengths) % multiple

    def set_epoch(self, epoch: int) -> None:
        """The trainer says which epoch comes next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths) + self._filling

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
        yield from [len(self._lengths)] * self._filling


class Filled(Dataset[Any]):
    """Rows, and after the last a clip that counts for nothing: it has no label.

    Processes that train together have equally many batches in each step, also where clips are left for some only.
    """

    def __init__(self, rows: Any, sampler: BucketSampler, shortest: int) -> None:
        """`shortest`: the number of a row that has no longer window than any other, or it would lengthen theirs."""
        self._rows = rows
        self._sampler = sampler
        self._shortest = shortest

    def set_epoch(self, epoch: int) -> None:
        """Where batches are dealt out, `accelerate` speaks to the data set instead of the sampler."""
        self._sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: int) -> Any:
        if at < len(self._rows):
            return self._rows[at]
        shortest = self._rows[self._shortest]
        return {**shortest, "labels": np.array([shortest["labels"][0], IGNORED])}
