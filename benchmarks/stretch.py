"""The carried small Whisper with longer windows, trained in them: what stock Whisper's half minute is to real clips."""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from daemon.asr.training import Progress, TrainingResult
from daemon.asr.whisper.config import TrainingSettings
from daemon.asr.whisper.train import train
from daemon.local.speech import Utterance, speak_corpus, wav_bytes
from daemon.local.tiny import BASE
from daemon.local.tiny.processor import build_processor

RATE = 1e-3
BATCH = 16


def asked(told: str | None) -> argparse.ArgumentParser:
    """The arguments of what begins with such a model."""
    arguments = argparse.ArgumentParser(description=told, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"window": 9, "steps": 120, "clips": 100, "adapt": 250}.items():
        arguments.add_argument(f"--{name}", type=int, default=default)
    return arguments


def stretched(window_s: int, steps: int, folder: Path) -> Path:
    """The base in windows of so many seconds, after so many steps on what it knows. Returns its directory."""
    if window_s == 3:
        return BASE
    raw = folder / "raw"
    _with_more_positions(window_s, raw)
    data = write(folder / "market", train=speak_corpus("A", 600, seed=71), test=())
    model = fit(raw, data, folder / "out", windows="whole", steps=steps, seed=0).model
    assert model, "nobody stopped it"
    return model


def fit(
    base: Path,
    data: Path,
    out: Path,
    *,
    windows: Any,
    steps: int,
    seed: int,
    batch: int = BATCH,
    rate: float = RATE,
    evals: int = 0,
    device: Any = "cpu",
    report: Callable[[Progress], None] = lambda _: None,
) -> TrainingResult:
    """Fine-tune as the daemon does. `evals`: how often the held-out side is tried meanwhile."""
    settings = TrainingSettings(
        base=str(base),
        device=device,
        batch_size=batch,
        gradient_accumulation=1,
        learning_rate=rate,
        spec_augment=False,
        eval_steps=steps // evals if evals else 10 * steps,
        save_steps=10 * steps,
        windows=windows,
        seed=seed,
        arguments={"max_steps": steps},
    )
    return train(settings, data, out, report=report, stop=lambda: False, resume=False)


def write(folder: Path, *, train: Sequence[Utterance], test: Sequence[Utterance]) -> Path:
    """An audiofolder of clips. Returns `folder`."""
    for side, clips in (("train", train), ("test", test)):
        (folder / side).mkdir(parents=True)
        with (folder / side / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(("file_name", "transcription"))
            for number, clip in enumerate(clips):
                (folder / side / f"{number:05}.wav").write_bytes(wav_bytes(clip.audio))
                table.writerow((f"{number:05}.wav", clip.text))
    return folder


def _with_more_positions(window_s: int, folder: Path) -> None:
    import torch
    from transformers import WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(BASE)
    config = type(model.config).from_dict(model.config.to_dict() | {"max_source_positions": 50 * window_s})
    longer = WhisperForConditionalGeneration(config)
    weights = dict(model.state_dict())
    name = "model.encoder.embed_positions.weight"
    known = weights[name]
    weights[name] = torch.cat([known, _sinusoids(50 * window_s, known.shape[1])[len(known) :]])
    longer.load_state_dict(weights)
    longer.generation_config = model.generation_config
    longer.save_pretrained(folder)
    build_processor(window_s).save_pretrained(folder)


def _sinusoids(length: int, channels: int) -> Any:
    """Of the encoder's positions, as the Whisper paper's code has them (openai/whisper, model.py)."""
    import torch

    scale = torch.exp(-math.log(10_000) / (channels // 2 - 1) * torch.arange(channels // 2))
    angles = torch.arange(length)[:, None] * scale[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)
