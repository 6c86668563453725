"""Spectrograms, computed once, on disk: an Arrow file that is mapped into memory while training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from daemon.asr.whisper.dataset import Example, LeftOutError, Preparer, Row

_AT_ONCE = 16
"""Rows held in memory before they are written."""

Matrix = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Examples on disk."""

    rows: Any
    """A `datasets.Dataset` of ``features`` (see `packed`), ``frames`` of the window, ``labels``; in the rows' order."""
    lengths: list[tuple[int, int]]
    """Per example, frames of its window and tokens."""
    seconds: float
    left_out: dict[str, int]
    """Reason -> rows."""

    def batches(self, size: int) -> Iterator[list[Any]]:
        """All rows, at most `size` at a time, and only those of one window together."""
        order = sorted(range(len(self.lengths)), key=lambda at: self.lengths[at], reverse=True)
        for _, same in groupby(order, key=lambda at: self.lengths[at][0]):
            rest = list(same)
            while rest:
                yield [self.rows[at] for at in rest[:size]]
                rest = rest[size:]


def prepare(preparer: Preparer, rows: Iterable[Row], file: Path, step: Callable[[int], bool]) -> Prepared | None:
    """Compute the examples of rows into an Arrow file. `step` is told how many rows are done; None when it says stop.

    Raises `OSError` when the disk is full.
    """
    from datasets import Dataset, Features, List, Value
    from datasets.arrow_writer import ArrowWriter

    columns = Features({"features": List(Value("float32")), "frames": Value("int32"), "labels": List(Value("int32"))})
    lengths: list[tuple[int, int]] = []
    left_out: Counter[str] = Counter()
    seconds = 0.0
    with ArrowWriter(path=str(file), features=columns, writer_batch_size=_AT_ONCE) as writer:
        for done, row in enumerate(rows, start=1):
            try:
                example = preparer.example(row)
            except LeftOutError as error:
                left_out[str(error)] += 1
            else:
                writer.write(_as_row(example))
                lengths.append((example.features.shape[1], len(example.labels)))
                seconds += example.seconds
            if step(done):
                return None
        if lengths:
            writer.finalize()
    examples = Dataset.from_file(str(file)).with_format("numpy") if lengths else None
    return Prepared(examples, lengths, seconds, dict(left_out))


def packed(features: Matrix) -> Matrix:
    """Without the last frames that are all alike, which is the silence that pads the window; one of them stays."""
    alike = (features == features[:, -1:]).all(axis=0)
    different = np.flatnonzero(~alike)
    return features[:, : int(different[-1]) + 2] if len(different) else features[:, :1]


def unpack(flat: Matrix, into: Matrix) -> None:
    """The spectrogram of a window (mels, frames), exactly as it was before `packed` and flattening, or as it is in a
    longer one.

    Written into its place in the batch: an array of its own for each clip costs ten times as much.
    """
    features = flat.reshape(len(into), -1)
    into[:, : features.shape[1]] = features
    into[:, features.shape[1] :] = features[:, -1:]


def _as_row(example: Example) -> dict[str, Any]:
    return {
        "features": packed(example.features).reshape(-1),
        "frames": example.features.shape[1],
        "labels": np.array(example.labels, dtype=np.int32),
    }
