"""Fine-tuning on the same data, steps and seed: as it is usually done, and as it is done here.

    python benchmarks/training.py [--window 9] [--steps 120] [--clips 100]

The usual way, which is the origin's: `Seq2SeqTrainer`, spectrograms of whole windows by `Dataset.map`, batches by
chance, float32, and every fourth part of the steps an evaluation by `predict_with_generate`. The model is that of
`windows.py`; so are the clips. CPU seconds from the audio files to the saved model; WER on 150 clips that nobody
trained on, each model heard as it was trained.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from report import Cost, Table, cost, heading
from stretch import BATCH, RATE, fit, stretched, write
from windows import hear

from daemon.asr.metrics import word_error_rate
from daemon.asr.transcriber import SAMPLE_RATE
from daemon.asr.whisper.dataset import read_rows
from daemon.asr.whisper.majors import open_processor
from daemon.asr.whisper.windows import Windows, read_windows
from daemon.local.speech import Utterance, speak_corpus

EVALS = 4
TRIED = 50
"""Clips in each evaluation while training."""


def usual(base: Path, data: Path, out: Path, *, steps: int, seed: int) -> Path:
    """Fine-tune as tutorials do. Returns the model's directory."""
    from datasets import Dataset
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, WhisperForConditionalGeneration, set_seed

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
    for side in ("train", "test"):
        rows = [{"path": str(row.path), "text": row.text} for row in read_rows(data, side)]
        sides[side] = Dataset.from_list(rows).map(prepared, remove_columns=["path", "text"])
    trainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            output_dir=str(out / "scratch"),
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=BATCH,
            learning_rate=RATE,
            warmup_steps=round(0.1 * steps),
            weight_decay=0.01,
            max_steps=steps,
            eval_strategy="steps",
            eval_steps=steps // EVALS,
            predict_with_generate=True,
            generation_max_length=60,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            seed=seed,
        ),
        train_dataset=sides["train"],
        eval_dataset=sides["test"],
        data_collator=collated,
        compute_metrics=rates,
    )
    trainer.train()
    model.save_pretrained(out / "model")
    processor.save_pretrained(out / "model")
    return out / "model"


def main() -> None:
    """Measure and print a table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"window": 9, "steps": 120, "clips": 100, "adapt": 250}.items():
        arguments.add_argument(f"--{name}", type=int, default=default)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    new, old = speak_corpus("B", given.clips, seed=500), speak_corpus("A", 100, seed=600)
    tried = speak_corpus("B", 150, seed=700, exclude=[clip.text for clip in new])
    print(f"{heading()}; window {given.window} s, {given.steps} steps on {given.clips} + 100 clips\n")
    table = Table(("way", "CPU s", "of the usual", "WER held out"))
    first: Cost | None = None
    with tempfile.TemporaryDirectory(prefix="ambara-bench-") as folder:
        root = Path(folder)
        base = stretched(given.window, given.adapt, root)
        data = write(root / "data", train=[*new, *old], test=tried[:TRIED])
        for name, policy in (("usual", None), ("ours, whole windows", "whole"), ("ours", "right-sized")):
            found, out = Cost(), root / f"out-{policy}"
            with cost(found):
                if policy is None:
                    model: Path | None = usual(base, data, out, steps=given.steps, seed=0)
                else:
                    model = fit(base, data, out, windows=policy, steps=given.steps, seed=0, evals=EVALS).model
            assert model, "nobody stopped it"
            first = first or found
            table.add(name, f"{found.cpu_s:.0f}", f"{first.cpu_s / found.cpu_s:.1f}x", _wer(model, given.window, tried))


def _wer(model: Path, window_s: int, clips: Sequence[Utterance]) -> str:
    windows: Windows = read_windows(model, str(model), float(window_s))
    return f"{hear(model, windows, clips, Cost()).wer:.1%}"


if __name__ == "__main__":
    main()
