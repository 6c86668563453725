"""Steps of fine-tuning: the second part of `gpu.py`.

Of each way as many epochs over the same clips as there are runs, after one that warms it up; then it is broken off,
before anything is saved. Evaluation and spectrograms are not in these times.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from card import SHARES, Batches, Card, gib
from gpu_drafting import babble
from report import Table, failure, spread
from shapes import SENTENCE, Shape
from stretch import fit, write
from transformers import TrainerCallback
from usual import usual
from work import training

from daemon.asr.training import Progress
from daemon.local.speech import Utterance

_RATE = 1e-5


class EnoughError(Exception):
    """All that was to be measured is measured."""


class Pace(TrainerCallback):  # type: ignore[misc]
    """Notes when each epoch ends, and breaks off after the last. A callback of a trainer, or `tell` to ours."""

    def __init__(self, card: Card, per_epoch: int, epochs: int, batches: Batches) -> None:
        """`per_epoch`: steps. `batches` are noted in the first epoch, which is not measured."""
        self._card = card
        self._per_epoch = per_epoch
        self._epochs = epochs
        self._batches = batches
        self._ends: list[float] = []

    @property
    def seconds(self) -> list[float]:
        """Of each epoch but the first."""
        return [after - before for before, after in zip(self._ends, self._ends[1:], strict=False)]

    def tell(self, progress: Progress) -> None:
        """Of our trainer."""
        if progress.phase == "training" and progress.step:
            self._ended(progress.step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Of a trainer of transformers."""
        self._ended(state.global_step)

    def _ended(self, step: int) -> None:
        if step % self._per_epoch:
            return
        self._batches.stop()
        self._ends.append(self._card.now())
        if len(self._ends) > self._epochs:
            raise EnoughError


def compare(card: Card, shape: Shape, model: Path, peak: tuple[float, float], given: argparse.Namespace) -> bool:
    """Measure and print. Returns whether one of ours fails; one of the usual may want more memory than there is."""
    clips = [Utterance(SENTENCE, "nobody", "A", wave) for wave in babble(given.learned, given.seconds)]
    per_epoch = given.learned // given.at_once
    print(f"\n{len(clips)} clips, {given.at_once} in a step\n")
    table = Table(("way", "clips a second", "of the usual", *SHARES[:2]))
    failed, first = False, 0.0
    with tempfile.TemporaryDirectory(prefix="ambara-bench-") as folder:
        data = write(Path(folder) / "data", train=clips, test=())
        for number, (name, train) in enumerate(ways(model, data, card.device, given.at_once)):
            os.environ.pop("ACCELERATE_MIXED_PRECISION", None)  # transformers 4 sets it for all that come after
            card.clear()
            with Batches() as batches:
                pace = Pace(card, per_epoch, given.runs, batches)
                try:
                    # Of so many steps that it does not come to its end, where the model is saved.
                    train(Path(folder) / str(number), (2 + given.runs) * per_epoch, pace)
                except EnoughError:
                    pass
                except Exception as error:
                    table.add(name, failure(error), "", "", "")
                    failed |= name.startswith("ours")
                    continue
            taken = card.taken()
            rates = [len(clips) / seconds for seconds in pace.seconds]
            first = first or statistics.median(rates)
            share, _ = training(shape, batches.seen).share(statistics.median(pace.seconds), *peak)
            speed = f"{statistics.median(rates) / first:.1f}x"
            table.add(name, spread(rates, ".3g"), speed, gib(taken), f"{share:.2%}")
    return failed


def ways(model: Path, data: Path, device: str, batch: int) -> Iterator[tuple[str, Callable[[Path, int, Pace], object]]]:
    """Everything that is compared. Each takes a folder, steps, and who is told."""

    def usually(out: Path, steps: int, pace: Pace, *, half: bool) -> None:
        usual(model, data, out, steps=steps, seed=0, batch=batch, rate=_RATE, device=device, half=half, watch=[pace])

    def ours(out: Path, steps: int, pace: Pace, *, windows: str) -> None:
        fit(
            model, data, out, windows=windows, steps=steps, seed=0, batch=batch, rate=_RATE, device=device,
            report=pace.tell,
        )  # fmt: skip

    yield "the usual: Seq2SeqTrainer, float32, 30 s", partial(usually, half=False)
    if device == "cuda":
        yield "the usual: Seq2SeqTrainer, float16, 30 s", partial(usually, half=True)
    number = "bfloat16" if device == "cuda" else "float32"
    yield f"ours: {number}, 30 s", partial(ours, windows="whole")
    yield f"ours: {number}, right-sized", partial(ours, windows="right-sized")
