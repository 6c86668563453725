"""`Seq2SeqTrainer` with the few things that fine-tuning Whisper here needs otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import PrinterCallback, Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerControl

from daemon.asr import ranks
from daemon.asr.error_rates import ErrorRates
from daemon.asr.whisper.buckets import BucketSampler, Filled
from daemon.asr.whisper.collator import IGNORED, Collator
from daemon.asr.whisper.features import Prepared
from daemon.asr.whisper.reporter import Reporter, StopWantedError
from daemon.asr.whisper.transformers_engine import TransformersEngine


class WhisperTrainer(Seq2SeqTrainer):  # type: ignore[misc]
    """Trains on what `features.prepare` left on disk."""

    control: TrainerControl

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
        at_once, together = arguments.per_device_train_batch_size * ranks.count(), ranks.count() > 1
        self._sampler = BucketSampler(
            train.lengths,
            at_once * arguments.gradient_accumulation_steps,
            arguments.seed,
            multiple=at_once if together else 1,
        )
        shortest = train.lengths.index(min(train.lengths))
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=Filled(train.rows, self._sampler, shortest) if together else train.rows,
            eval_dataset=held_out.rows if held_out else None,
            data_collator=Collator(
                mels=processor.feature_extractor.feature_size,
                start=model.config.decoder_start_token_id,
                pad=model.config.pad_token_id,
            ),
            compute_loss_func=loss_of_a_step(arguments.label_smoothing_factor),
            callbacks=[reporter],
        )
        self.remove_callback(PrinterCallback)  # standard output belongs to whoever called
        self._engine = TransformersEngine(model, prompt, no_speech=None)  # makes the model take windows of any length
        self._tokenizer = processor.tokenizer
        self._held_out = held_out
        self._reporter = reporter

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Let the held-out clips be heard as they would be in drafting, each in its own window.

        By the first process alone: dealt out to several, as the trainer would have it, some would count twice.
        """
        found = ranks.agree(None if ranks.rank() else self._heard())
        if found:
            self.log(found)
        elif self.state.global_step < self.state.max_steps:  # else the model is finished, and saved in a moment
            self._reporter.halt(self.control)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found or {})
        return found or {}

    def _heard(self) -> dict[str, float] | None:
        """None if somebody wanted it to stop."""
        self.model.eval()
        half = torch.bfloat16 if self.args.bf16 else torch.float16
        try:
            with torch.autocast(self.args.device.type, half, enabled=self.args.bf16 or self.args.fp16):
                return {f"eval_{name}": rate for name, rate in self._error_rates().items()}
        except StopWantedError:
            return None

    def _error_rates(self) -> dict[str, float]:
        assert self._held_out is not None, "there is something to try"
        said, written = [], []
        for rows in self._held_out.batches(self.args.per_device_eval_batch_size):
            batch = self.data_collator(rows)
            said += [spoken.tokens for spoken in self._engine.hear(batch["input_features"])]
            written += [[token for token in labels if token != IGNORED] for labels in batch["labels"].tolist()]
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        # It gets a folder of ours for its scratch files: the home may be read-only.
        metric = ErrorRates(keep_in_memory=True, cache_dir=self.args.output_dir)
        rates: dict[str, float] = metric.compute(predictions=self._texts(said), references=self._texts(written))
        return rates

    def _texts(self, tokens: list[list[int]]) -> list[str]:
        return [str(text).strip() for text in self._tokenizer.batch_decode(tokens, skip_special_tokens=True)]

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
