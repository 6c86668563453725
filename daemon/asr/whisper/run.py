"""One training run: spectrograms, then attempts until one ends for another reason than memory."""

from __future__ import annotations

import copy
import gc
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from daemon.asr import ranks
from daemon.asr.errors import out_of_memory
from daemon.asr.training import Progress, TrainAgainError, TrainingError, TrainingResult
from daemon.asr.whisper import arguments, finished, lora
from daemon.asr.whisper.arguments import Batching
from daemon.asr.whisper.checkpoints import newest_whole, step_of
from daemon.asr.whisper.config import TrainingSettings
from daemon.asr.whisper.dataset import Row, spread
from daemon.asr.whisper.features import Prepared, prepare
from daemon.asr.whisper.reporter import Reporter, not_a_number
from daemon.asr.whisper.start import Start
from daemon.asr.whisper.trainer import WhisperTrainer

CHECKPOINTS = "checkpoints"
_TELL_EVERY = 10
"""Clips, while spectrograms are computed."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one call of `train` works with."""

    settings: TrainingSettings
    start: Start
    out: Path
    report: Callable[[Progress], None]
    stop: Callable[[], bool]

    def carry_out(self, rows: list[Row], held_out: list[Row], folder: Path) -> TrainingResult:
        """Train on `rows`; `folder` takes the spectrograms. When the device's memory runs out, in smaller batches.

        Where several processes train together, the first computes the spectrograms for all.
        """
        judged = list(spread(held_out, self.settings.eval_clips))
        total = len(rows) + len(judged)
        examples = self._prepare(rows, folder / "train.arrow", 0, total)
        tried = self._prepare(judged, folder / "test.arrow", len(rows), total) if examples else None
        whole = Batching(self.settings.batch_size, self.settings.gradient_accumulation)
        batching = whole.shared(ranks.count())
        key = self._key(rows)
        if examples is None or tried is None:
            return self._stopped_early(batching, key)
        need_clips(len(examples.lengths), examples.left_out)
        while True:
            try:
                return self._attempt(examples, tried if tried.lengths else None, batching, key)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            # Only here, outside the handler, are the failed attempt's tensors free.
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            smaller = batching.smaller()
            if smaller is None:
                raise TrainingError(
                    "out-of-memory",
                    f"Not even one clip at a time fits into the memory of {self.start.device}: "
                    "train a smaller base, with gradient checkpointing, or with a LoRA rank.",
                )
            if ranks.count() > 1:  # the others are in the midst of a step that this one will never end
                raise TrainAgainError(
                    "out-of-memory",
                    f"The memory of {self.start.device} ran out: train with a smaller batch_size and a larger "
                    "gradient_accumulation.",
                    {"batch_size": smaller.size, "gradient_accumulation": whole.step // smaller.size},
                )
            batching = smaller

    def _prepare(self, rows: list[Row], file: Path, before: int, total: int) -> Prepared | None:
        if ranks.rank():
            return ranks.agree(None)

        def step(done: int) -> bool:
            if (before + done) % _TELL_EVERY == 0 or before + done == total:
                self.report(Progress("features", before + done, total))
            return self.stop()

        return ranks.agree(prepare(self.start.preparer(), rows, file, step))

    def _key(self, rows: list[Row]) -> str:
        """What a checkpoint must be of to go on from it: the same base, settings and data.

        On which device and how a step's clips reach it is left open.
        """
        step = self.settings.batch_size * self.settings.gradient_accumulation
        settings = {**asdict(self.settings), "base": self.start.fingerprint, "revision": None, "device": None}
        settings |= {"batch_size": step, "gradient_accumulation": None}
        facts = [settings, [(row.file_name, row.text) for row in rows]]
        return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()

    def _attempt(self, examples: Prepared, tried: Prepared | None, batching: Batching, key: str) -> TrainingResult:
        checkpoint = self._checkpoint(key)
        set_seed(self.settings.seed)
        model = self.start.model()
        # Sinusoids, and none but the first are seen in short windows; transformers 5 would train them, 4 does not.
        model.get_encoder().embed_positions.requires_grad_(False)
        served = copy.deepcopy(model.config), copy.deepcopy(model.generation_config)
        model.config.apply_spec_augment = self.settings.spec_augment
        model = lora.adapted(model, self.settings.lora_rank)
        reporter = Reporter(self.report, self.stop, key, judged=tried is not None)
        trainer = WhisperTrainer(
            model,
            arguments.training_arguments(
                self.settings,
                self.out / CHECKPOINTS,
                steps=arguments.count_steps(self.settings, len(examples.lengths)),
                batching=batching,
                device=self.start.device,
                judged=tried is not None,
            ),
            processor=self.start.processor(),
            prompt=self.start.prompt,
            train=examples,
            held_out=tried,
            reporter=reporter,
        )
        trainable = sum(each.numel() for each in model.parameters() if each.requires_grad)
        if ranks.rank():
            set_seed(self.settings.seed + ranks.rank())  # else all would drop the same units of different clips
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        result = self._result(
            batching,
            model=None if reporter.stopped else self.out / finished.MODEL,
            step=trainer.state.global_step,
            steps=trainer.state.max_steps,
            clips=len(examples.lengths),
            seconds=examples.seconds,
            left_out=examples.left_out,
            loss=reporter.loss,
            wer=reporter.wer,
            resumed_from=step_of(checkpoint) if checkpoint else None,
            parameters=trainable,
        )
        if not reporter.stopped:
            reporter.tell("saving", trainer.state)
            return self._publish(lora.merged(model, self.settings.lora_rank), served, result)
        return result

    def _publish(self, model: Any, served: tuple[Any, Any], result: TrainingResult) -> TrainingResult:
        if ranks.rank():
            return result
        if not all(bool(torch.isfinite(each).all()) for each in model.parameters()):
            raise not_a_number("its end")
        # What was set for the training must not change how the model is served.
        model.config, model.generation_config = served
        result = finished.publish(model, self.start.processor(), self.start.windows, self.out, result)
        shutil.rmtree(self.out / CHECKPOINTS, ignore_errors=True)  # `Registry.publish` looks for them again
        return result

    def _stopped_early(self, batching: Batching, key: str) -> TrainingResult:
        """Stopped while spectrograms were computed: they are computed anew, and the steps go on where they were."""
        checkpoint = self._checkpoint(key)
        step = step_of(checkpoint) if checkpoint else 0
        return self._result(batching, model=None, step=step, steps=0, clips=0, seconds=0.0, left_out={})

    def _checkpoint(self, key: str) -> Path | None:
        """The one to go on from. The first process decides, and removes what is not whole."""
        return ranks.agree(None if ranks.rank() else newest_whole(self.out / CHECKPOINTS, key))

    def _result(self, batching: Batching, *, model: Path | None, **facts: Any) -> TrainingResult:
        return TrainingResult(
            model=model,
            stopped=model is None,
            device=str(self.start.device),
            precision=arguments.precision(self.settings, self.start.device),
            batch_size=batching.size,
            gradient_accumulation=batching.accumulation,
            processes=ranks.count(),
            **facts,
        )


def need_clips(clips: int, left_out: Mapping[str, int]) -> None:
    """Raise `TrainingError` if nothing is left to learn from."""
    if not clips:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
        raise TrainingError("data", f"No clip of the data set can be learned from: {reasons}.")
