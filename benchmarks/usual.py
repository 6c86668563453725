"""Fine-tuning as it is usually done, which is the origin's way.

`Seq2SeqTrainer`, spectrograms of whole windows by `Dataset.map`, batches by chance, float32, and an evaluation now and
then by `predict_with_generate`. Needs datasets, jiwer and soundfile.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from daemon.asr.metrics import word_error_rate
from daemon.asr.transcriber import SAMPLE_RATE
from daemon.asr.whisper.dataset import read_rows
from daemon.asr.whisper.majors import open_processor


def usual(
    base: Path,
    data: Path,
    out: Path,
    *,
    steps: int,
    seed: int,
    batch: int,
    rate: float,
    evals: int = 0,
    device: str = "cpu",
    half: bool = False,
    watch: Sequence[Any] = (),
) -> Path:
    """Fine-tune as tutorials do. Returns the model's directory.

    `evals`: how often the held-out side is tried meanwhile. `half`: in float16. `watch`: callbacks of the trainer.
    """
    from datasets import Dataset
    from transformers import (
        PrinterCallback,
        Seq2SeqTrainer,
        Seq2SeqTrainingArguments,
        WhisperForConditionalGeneration,
        set_seed,
    )

    set_seed(seed)
    processor = open_processor(base)
    processor.tokenizer.set_prefix_tokens(language="mg", task="transcribe")
    model = WhisperForConditionalGeneration.from_pretrained(base)
    model.generation_config.update(max_length=None)

    def prepared(row: dict[str, Any]) -> dict[str, Any]:
        audio, _ = soundfile.read(row["path"], dtype="float32")
        features = processor.feature_extractor(audio, sampling_rate=SAMPLE_RATE).input_features[0]
        return {"input_features": features, "labels": processor.tokenizer(row["text"]).input_ids[1:]}

    def collated(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        labels = [torch.tensor(row["labels"]) for row in rows]
        return {
            "input_features": torch.from_numpy(np.array([row["input_features"] for row in rows], dtype=np.float32)),
            "labels": torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100),
        }

    def rates(found: Any) -> dict[str, float]:
        pad = processor.tokenizer.pad_token_id
        texts = [
            processor.tokenizer.batch_decode(np.where(each == -100, pad, each), skip_special_tokens=True)
            for each in (found.label_ids, found.predictions)
        ]
        return {"wer": word_error_rate(*texts)}

    sides = {}
    for side in ("train", "test")[: 1 + bool(evals)]:
        rows = [{"path": str(row.path), "text": row.text} for row in read_rows(data, side)]
        sides[side] = Dataset.from_list(rows).map(prepared, remove_columns=["path", "text"])
    trainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            output_dir=str(out / "scratch"),
            per_device_train_batch_size=batch,
            per_device_eval_batch_size=batch,
            learning_rate=rate,
            warmup_steps=round(0.1 * steps),
            weight_decay=0.01,
            max_steps=steps,
            eval_strategy="steps" if evals else "no",
            eval_steps=steps // evals if evals else None,
            predict_with_generate=True,
            generation_max_length=60,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            fp16=half,
            use_cpu=device == "cpu",
            seed=seed,
        ),
        train_dataset=sides["train"],
        eval_dataset=sides.get("test"),
        data_collator=collated,
        compute_metrics=rates,
        callbacks=list(watch),
    )
    trainer.remove_callback(PrinterCallback)  # standard output is the table's
    trainer.train()
    model.save_pretrained(out / "model")
    processor.save_pretrained(out / "model")
    return out / "model"
