"""Fine-tuning: a data set in, a model out, and a checkpoint to go on from wherever it was interrupted.

OUT/model           model and processor as `save_pretrained` writes them; there when they are whole
OUT/result.json     what `train` returned
OUT/checkpoints     while it is not finished
"""

from __future__ import annotations

import pickle
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.asr import ranks
from daemon.asr.device import keep_memory
from daemon.asr.errors import ModelError
from daemon.asr.training import Plan, Progress, TrainingError, TrainingResult
from daemon.asr.transcriber import SAMPLE_RATE
from daemon.asr.whisper import arguments, finished, lora
from daemon.asr.whisper.checkpoints import need_room, no_room, remove_unfinished
from daemon.asr.whisper.config import TrainingSettings
from daemon.asr.whisper.dataset import LeftOutError, Row, read_rows
from daemon.asr.whisper.run import CHECKPOINTS, Run, need_clips
from daemon.asr.whisper.start import Start, open_start


def train(
    settings: TrainingSettings,
    data: Path,
    out: Path,
    *,
    report: Callable[[Progress], None],
    stop: Callable[[], bool],
    resume: bool,
) -> TrainingResult:
    """Fine-tune a Whisper on the audiofolder `data` into ``out/model``.

    `stop` is asked after every step (and every clip, before the steps begin): once it says yes a whole checkpoint is
    written and the result says `stopped`. With `resume` a training goes on from its newest whole checkpoint to the same
    weights as without an interruption, and one that is finished gives its result again. Of several processes that
    `torchrun` has started the first reports, is asked and writes.

    Raises `TrainingError`.
    """
    keep_memory()
    with _explained(out):
        ranks.join(settings.device)
        if done := finished.found(out, resume=resume):
            return done
        start, rows = _begin(settings, data)
        if not resume and any((out / CHECKPOINTS).glob("checkpoint-*")):
            raise TrainingError(
                "exists", f"{out} holds the checkpoints of an unfinished training: resume it, or train elsewhere."
            )
        held_out, spectrograms = read_rows(data, "test"), out / "features"
        if ranks.rank():
            return Run(settings, start, out, _unheard, stop).carry_out(rows, held_out, spectrograms)
        _make_room(out, start, rows)
        shutil.rmtree(spectrograms, ignore_errors=True)
        spectrograms.mkdir()
        try:
            return Run(settings, start, out, report, stop).carry_out(rows, held_out, spectrograms)
        finally:
            shutil.rmtree(spectrograms, ignore_errors=True)


def plan(settings: TrainingSettings, data: Path, *, report: Callable[[Progress], None]) -> Plan:
    """What `train` would do. Reads every clip and writes nothing. Raises `TrainingError`."""
    start, rows = _begin(settings, data)
    preparer = start.preparer()
    seconds: list[float] = []
    left_out: Counter[str] = Counter()
    for done, row in enumerate(rows, start=1):
        try:
            seconds.append(len(preparer.check(row)[1]) / SAMPLE_RATE)
        except LeftOutError as error:
            left_out[str(error)] += 1
        report(Progress("features", done, len(rows)))
    need_clips(len(seconds), left_out)
    return Plan(
        clips=len(seconds),
        seconds=sum(seconds),
        held_out=len(read_rows(data, "test")),
        left_out=dict(left_out),
        steps=arguments.count_steps(settings, len(seconds)),
        device=str(start.device),
        precision=arguments.precision(settings, start.device),
    )


def _begin(settings: TrainingSettings, data: Path) -> tuple[Start, list[Row]]:
    arguments.check(settings)
    lora.check(settings.lora_rank)
    rows = read_rows(data, "train")
    if not rows:
        raise TrainingError(
            "data", f"There is nothing to learn from in {data}: train/metadata.csv is missing, or lists no clip."
        )
    start = open_start(settings)
    ranks.check(start.device)
    # What transformers refuses had better be refused now than after the spectrograms.
    batching = arguments.Batching(settings.batch_size, settings.gradient_accumulation).shared(ranks.count())
    arguments.training_arguments(settings, Path(), steps=1, batching=batching, device=start.device, judged=False)
    return start, rows


def _unheard(_: Progress) -> None:
    """For those whose progress is the first one's."""


def _make_room(out: Path, start: Start, rows: list[Row]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / CHECKPOINTS).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise TrainingError("exists", f"Nothing can be written to {out}: {error.strerror}.") from None
    # A second of 16 kHz audio with 16 bits is as large as its 100 frames of 80 mels.
    spectrograms = sum(row.path.stat().st_size for row in rows if row.path and row.path.is_file())
    need_room(out, 3 * start.weights + spectrograms)


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    try:
        yield
    except ModelError as error:
        raise TrainingError("base", str(error)) from error
    except TrainingError:
        raise
    except pickle.UnpicklingError as error:  # torch opens plain data alone
        raise TrainingError(
            "checkpoint-unsafe",
            f"A checkpoint in {out / CHECKPOINTS} holds more than plain data and was not opened: "
            "remove it, or train into another folder.",
        ) from error
    except Exception as error:
        if not (out.exists() and no_room(error, out)):
            raise
        remove_unfinished(out / CHECKPOINTS)
        raise TrainingError(
            "disk-full", f"The disk of {out} is full: make room and resume; the last whole checkpoint is kept."
        ) from error
