"""`Seq2SeqTrainer` with the few things that fine-tuning Whisper here needs otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback, Seq2SeqTrainer, Seq2SeqTrainingArguments
from transformers.trainer_utils import EvalPrediction

from daemon.asr.error_rates import ErrorRates
from daemon.asr.whisper.buckets import BucketSampler
from daemon.asr.whisper.collator import IGNORED, Collator
from daemon.asr.whisper.features import Prepared
from daemon.asr.whisper.reporter import Reporter, StopWantedError


class WhisperTrainer(Seq2SeqTrainer):  # type: ignore[misc]
    """Trains on what `features.prepare` left on disk."""

    def __init__(
        self,
        model: Any,
        arguments: Seq2SeqTrainingArguments,
        *,
        processor: Any,
        prompt: dict[str, str],
        train: Prepared,
        held_out: Prepared | None,
        reporter: Reporter,
    ) -> None:
        """`prompt`: what `generate` takes, language and task, or nothing for an English-only model."""
        extractor = processor.feature_extractor
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=train.rows,
            eval_dataset=held_out.rows if held_out else None,
            data_collator=Collator(
                mels=extractor.feature_size,
                frames=extractor.nb_max_frames,
                start=model.config.decoder_start_token_id,
                pad=model.config.pad_token_id,
            ),
            compute_loss_func=loss_of_a_step(arguments.label_smoothing_factor),
            compute_metrics=_error_rates(processor.tokenizer, arguments.output_dir),
            callbacks=[reporter],
        )
        self.remove_callback(PrinterCallback)  # standard output belongs to whoever called
        self._prompt = prompt
        self._reporter = reporter
        step_size = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
        self._sampler = BucketSampler(train.lengths, step_size, arguments.seed)

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """As the trainer does it, in the model's language; it leaves no trace in the order of chance."""
        try:
            with torch.random.fork_rng(devices=[]):
                found: dict[str, float] = super().evaluate(*args, **options, **self._prompt)
        except StopWantedError:
            if self.state.global_step < self.state.max_steps:  # else the model is finished, and saved in a moment
                self._reporter.halt(self.control)
            return {}
        return found

    def _inner_training_loop(self, batch_size: int | None = None, **options: Any) -> Any:  # noqa: ARG002
        """transformers 4 would go on with the checkpoint's batch size, which memory may not hold any more."""
        return super()._inner_training_loop(batch_size=self.args.train_batch_size, **options)

    def _get_train_sampler(self, train_dataset: Any = None) -> BucketSampler:  # noqa: ARG002
        return self._sampler


def loss_of_a_step(smoothing: float) -> Callable[..., torch.Tensor]:
    """Cross-entropy per token over a whole step: the same however many batches the step is cut into.

    Whisper's own loss is a mean per batch, which the trainer takes for a share of the step.
    """

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None) -> torch.Tensor:
        total = torch.nn.functional.cross_entropy(
            outputs.logits.flatten(0, 1).float(),
            labels.flatten(),
            ignore_index=IGNORED,
            label_smoothing=smoothing,
            reduction="sum",
        )
        count = (labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        return total / count

    return loss


def _error_rates(tokenizer: Any, scratch: str) -> Callable[[EvalPrediction], dict[str, float]]:
    """Error rates of generated tokens against labels. `evaluate` gets `scratch`: the home may be read-only."""

    def texts(tokens: Any) -> list[str]:
        whole = np.where(tokens == IGNORED, tokenizer.pad_token_id, tokens)
        return [str(text).strip() for text in tokenizer.batch_decode(whole, skip_special_tokens=True)]

    def compute(found: EvalPrediction) -> dict[str, float]:
        rates: dict[str, float] = ErrorRates(keep_in_memory=True, cache_dir=scratch).compute(
            predictions=texts(found.predictions), references=texts(found.label_ids)
        )
        return rates

    return compute
