"""From rows to a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from daemon.asr.whisper.features import unpack

IGNORED = -100
"""A label that counts for nothing."""


@dataclass(frozen=True, slots=True)
class Collator:
    """Puts rows of `features.prepare` together.

    A tokenizer's labels begin with the start token. The decoder is given it as its first input and never has to
    predict it: left in the labels it would stand twice before every text.
    """

    mels: int
    start: int
    """Token id."""
    pad: int
    """Token id with which the decoder's input is filled up; such positions count for nothing."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_features` (rows, mels, frames), `decoder_input_ids` and `labels` (rows, tokens - 1).

        As many frames as the longest window among them has.
        """
        tokens = [np.asarray(row["labels"]) for row in rows]
        if any(each[0] != self.start for each in tokens):
            raise ValueError("Every row of labels must begin with the start token.")
        shape = (len(rows), max(len(each) for each in tokens) - 1)
        before, after = np.full(shape, self.pad), np.full(shape, IGNORED)
        for at, each in enumerate(tokens):
            before[at, : len(each) - 1] = each[:-1]
            after[at, : len(each) - 1] = each[1:]
        frames = max(int(row["frames"]) for row in rows)
        features = np.empty((len(rows), self.mels, frames), dtype=np.float32)
        for row, place in zip(rows, features, strict=True):
            unpack(np.asarray(row["features"]), place)
        return {
            "input_features": torch.from_numpy(features),
            "decoder_input_ids": torch.from_numpy(before),
            "labels": torch.from_numpy(after),
        }
