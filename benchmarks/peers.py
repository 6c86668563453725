"""The ways of drafting that are compared: those that are usual, and ours.

* the origin's loop: one clip after the other through `WhisperForConditionalGeneration.generate`, float32, 30 s window
* transformers, batched: the same, several clips at a time
* faster-whisper: `BatchedInferencePipeline`, every clip one of its chunks, greedy, no timestamps; it takes a vocabulary
  that is not OpenAI's for English only, so its prompt is two tokens shorter and its answer two longer
* ours: `Transcriber.transcribe`, silence gate and guards included, in whole and in right-sized windows
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from daemon.asr.transcriber import SAMPLE_RATE, Waveform
from daemon.asr.whisper.config import WhisperSettings
from daemon.asr.whisper.load import load_transcriber
from daemon.asr.whisper.majors import open_processor
from daemon.asr.whisper.windows import Windows

_ASKED = {"language": "mg", "task": "transcribe"}
Draft = Callable[[Sequence[Waveform]], list[str]]


def with_transformers(folder: Path, batch: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Draft:
    """One clip after the other if `batch` is 1, which is how the origin does it."""
    from transformers import WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval().to(device)
    model.generation_config.max_length = None
    processor = open_processor(folder)

    def draft(waves: Sequence[Waveform]) -> list[str]:
        said: list[str] = []
        for at in range(0, len(waves), batch):
            some = list(waves[at : at + batch])
            found = processor.feature_extractor(some, sampling_rate=SAMPLE_RATE, return_tensors="pt")
            with torch.inference_mode():
                tokens = model.generate(found.input_features.to(device, dtype), max_new_tokens=444, **_ASKED)
            said += processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return said

    return draft


def with_faster_whisper(folder: Path, batch: int, dtype: str, threads: int, device: str = "cpu") -> Draft:
    """The clips one behind the other in one recording, which is what it can batch."""
    from ctranslate2.converters import TransformersConverter
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    converted = folder.with_name(f"{folder.name}-{dtype}")
    if not converted.exists():
        copied = ["tokenizer.json", "preprocessor_config.json"]
        _old_extractor(folder)
        TransformersConverter(str(folder), copy_files=copied).convert(str(converted), quantization=dtype)
    model = WhisperModel(str(converted), device=device, compute_type=dtype, cpu_threads=threads)
    pipeline = BatchedInferencePipeline(model)

    def draft(waves: Sequence[Waveform]) -> list[str]:
        ends = np.cumsum([len(wave) for wave in waves]) / SAMPLE_RATE
        starts = [0.0, *ends[:-1]]
        segments, _ = pipeline.transcribe(
            np.concatenate(waves),
            **_ASKED,
            batch_size=batch,
            beam_size=1,
            temperature=0,
            vad_filter=False,
            without_timestamps=True,
            suppress_tokens=[],  # its own list has the space, which is a token by itself in our vocabulary
            clip_timestamps=[{"start": start, "end": end} for start, end in zip(starts, ends, strict=True)],
        )
        return [segment.text.strip() for segment in segments]

    return draft


def _old_extractor(folder: Path) -> None:
    """faster-whisper reads the file that transformers 4 writes."""
    open_processor(folder).feature_extractor.save_pretrained(folder)


def with_ours(
    folder: Path, batch: int, engine: Any, dtype: Any, windows: Windows, device: Any = "cpu", at_once: int = 0
) -> Draft:
    """Through `Transcriber`, as the daemon does it: so many clips at once, of like lengths; 0 are all."""
    windows.write(folder)
    model = load_transcriber(WhisperSettings(str(folder), device=device, engine=engine, dtype=dtype, batch_size=batch))

    def draft(waves: Sequence[Waveform]) -> list[str]:
        order = sorted(range(len(waves)), key=lambda at: len(waves[at]))
        said = [""] * len(waves)
        for first in range(0, len(waves), at_once or len(waves)):
            some = order[first : first + (at_once or len(waves))]
            for at, one in zip(some, model.transcribe([waves[at] for at in some]), strict=True):
                said[at] = one.text
        return said

    return draft
