"""Make the carried base model again: ``python -m daemon.local.tiny.make_base --out DIRECTORY``.

It speaks domain A, trains a Whisper of 298,048 parameters on it with `Seq2SeqTrainer` (seven minutes of one CPU
core), saves it, and prints its word error rate on sentences it has not heard: about 1 % on A, around 65 % on B.
Needs transformers 5.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console

from daemon.asr.metrics import word_error_rate
from daemon.asr.transcriber import SAMPLE_RATE
from daemon.asr.whisper.config import WhisperSettings
from daemon.local.speech import LONGEST_S, Utterance, concatenate, silence, speak_corpus
from daemon.local.tiny.processor import build_processor, generation_config

LANGUAGE = "mg"
_FRAMES_PER_S = 50
"""Encoder positions per second of audio."""
_MAX_TARGET = 64
"""Decoder positions: enough for three seconds of speech, spelled byte by byte."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that shapes the weights, beside the versions of the libraries."""

    clips: int = 4500
    rambling: float = 0.25
    """Share of clips with loose words: it makes the pieces of long recordings intelligible."""
    late: float = 0.33
    """Share of clips that begin somewhere later in the window, after silence, as such pieces do."""
    epochs: float = 18
    batch_size: int = 16
    learning_rate: float = 3e-3
    dropout: float = 0.1
    width: int = 64
    corpus_seed: int = 11
    seed: int = 0
    held_out: int = 150


def main() -> None:
    """Train, save, judge, and write down what was done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory for the model")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    for name, value in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    given = vars(parser.parse_args())
    out: Path = given.pop("out")
    make(Recipe(**{key: value for key, value in given.items() if key != "threads"}), out, given["threads"])


def make(recipe: Recipe, out: Path, threads: int = 1) -> None:
    """Train a base into `out` and leave ``provenance.json`` beside the weights."""
    import torch

    torch.set_num_threads(threads)
    say = Console().print
    train = speak_corpus("A", recipe.clips, recipe.corpus_seed, rambling=recipe.rambling)
    say(f"{len(train)} clips of domain A spoken.")
    _train(recipe, train, out)
    heard = [clip.text for clip in train]
    judged = {
        "A": word_errors(out, speak_corpus("A", recipe.held_out, recipe.corpus_seed + 1, exclude=heard)),
        "B": word_errors(out, speak_corpus("B", recipe.held_out, recipe.corpus_seed + 2, exclude=heard)),
    }
    say(f"Word error rate on held-out sentences: A {judged['A']:.1%}, B {judged['B']:.1%}.")
    provenance = {
        "command": "python -m daemon.local.tiny.make_base --out DIRECTORY",
        "recipe": asdict(recipe),
        "threads": threads,
        "language": LANGUAGE,
        "word_error_rate": {domain: round(rate, 4) for domain, rate in judged.items()},
        "versions": {name: version(name) for name in ("torch", "transformers", "espeakng-loader", "numpy", "soxr")},
    }
    (out / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")


def word_errors(model: Path, clips: Sequence[Utterance]) -> float:
    """Pooled WER of a model directory on clips, through the serving side."""
    from daemon.asr.whisper.load import load_transcriber

    transcriber = load_transcriber(WhisperSettings(model=str(model), language=LANGUAGE))
    drafts = transcriber.transcribe([clip.audio for clip in clips])
    return word_error_rate([clip.text for clip in clips], [draft.text for draft in drafts])


def _train(recipe: Recipe, clips: Sequence[Utterance], out: Path) -> None:
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, set_seed

    set_seed(recipe.seed)
    processor = build_processor(int(LONGEST_S))
    model = _fresh_model(recipe, processor.tokenizer)
    steps = int(-(-recipe.clips // recipe.batch_size) * recipe.epochs)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = Seq2SeqTrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            max_steps=steps,
            warmup_steps=round(0.07 * steps),
            lr_scheduler_type="linear",
            weight_decay=0.01,
            adam_beta2=0.98,
            max_grad_norm=1.0,
            seed=recipe.seed,
            data_seed=recipe.seed,
            save_strategy="no",
            logging_steps=200,
            report_to="none",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            use_cpu=True,
        )
        trainer = Seq2SeqTrainer(
            model=model, args=arguments, train_dataset=_rows(recipe, processor, clips), data_collator=_collate
        )
        trainer.train()
    model.save_pretrained(out)
    processor.save_pretrained(out)


def _fresh_model(recipe: Recipe, tokenizer: Any) -> Any:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    settings = generation_config(tokenizer, _MAX_TARGET)
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=len(tokenizer),
            d_model=recipe.width,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=4 * recipe.width,
            decoder_ffn_dim=4 * recipe.width,
            max_source_positions=int(LONGEST_S * _FRAMES_PER_S),
            max_target_positions=_MAX_TARGET,
            dropout=recipe.dropout,
            pad_token_id=settings.pad_token_id,
            bos_token_id=settings.bos_token_id,
            eos_token_id=settings.eos_token_id,
            decoder_start_token_id=settings.decoder_start_token_id,
            suppress_tokens=None,
            begin_suppress_tokens=None,
        )
    )
    model.generation_config = settings
    return model


def _rows(recipe: Recipe, processor: Any, clips: Sequence[Utterance]) -> list[dict[str, Any]]:
    rng = Random(recipe.seed)  # noqa: S311 - reproducible on purpose
    processor.tokenizer.set_prefix_tokens(language=LANGUAGE, task="transcribe")
    rows = []
    for clip in clips:
        wait = rng.uniform(0, LONGEST_S - clip.seconds) if rng.random() < recipe.late else 0.0
        audio = concatenate([silence(wait), clip.audio], pause_s=0)
        features = processor.feature_extractor(audio, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        # The model puts <|startoftranscript|> in front of the labels itself.
        labels = processor.tokenizer(clip.text).input_ids[1:]
        rows.append({"input_features": features.input_features[0], "labels": labels})
    return rows


def _collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    import torch
    from torch.nn.utils.rnn import pad_sequence

    labels = pad_sequence([torch.tensor(row["labels"]) for row in rows], batch_first=True, padding_value=-100)
    return {"input_features": torch.stack([row["input_features"] for row in rows]), "labels": labels}


if __name__ == "__main__":
    main()
