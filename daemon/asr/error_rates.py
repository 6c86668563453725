"""The error rates as a metric of `evaluate`: computed here with jiwer, nothing is downloaded."""

from __future__ import annotations

import datasets
import evaluate

from daemon.asr.metrics import character_error_rate, raw_word_error_rate, word_error_rate


class ErrorRates(evaluate.Metric):  # type: ignore[misc]
    """``ErrorRates().compute(predictions=[…], references=[…])`` gives ``wer``, ``wer_raw`` and ``cer`` as fractions.

    `wer` and `cer` are of normalised text, `wer_raw` of the text as it is written; all pooled over the pairs.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Word and character error rate, pooled over all pairs.",
            citation="",
            inputs_description="predictions and references: lists of texts, one for one.",
            features=datasets.Features({name: datasets.Value("string") for name in ("predictions", "references")}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return {
            "wer": word_error_rate(references, predictions),
            "wer_raw": raw_word_error_rate(references, predictions),
            "cer": character_error_rate(references, predictions),
        }
