"""Which engine hears, and in what numbers."""

from __future__ import annotations

import torch

from daemon.asr.errors import ModelError
from daemon.asr.whisper import ctranslate2_engine
from daemon.asr.whisper.config import WhisperSettings
from daemon.asr.whisper.ctranslate2_engine import CTranslate2Engine
from daemon.asr.whisper.engine import Engine, Source
from daemon.asr.whisper.listener import no_speech_token
from daemon.asr.whisper.transformers_engine import TransformersEngine

__all__ = ["Source", "build", "choose"]


def choose(settings: WhisperSettings, device: torch.device) -> tuple[str, str]:
    """The engine's name, and the numbers that it computes in. Raises `ModelError` if they cannot be had together."""
    if settings.dtype == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ModelError("This GPU cannot compute in bfloat16: choose dtype auto or float16.")
    number = None if settings.engine == "transformers" else ctranslate2_engine.numbers(settings.dtype, device)
    if number:
        return "ctranslate2", number
    if settings.engine == "ctranslate2":
        raise ModelError(ctranslate2_engine.why_not(settings.dtype, device))
    half = "float16" if device.type == "cuda" else "float32"
    return "transformers", half if settings.dtype == "auto" else settings.dtype


def build(engine: str, source: Source, device: torch.device, number: str) -> Engine:
    """Load a model onto its device. Raises `ModelError` if its weights cannot be used."""
    if engine == "ctranslate2":
        return CTranslate2Engine(source, device, number)
    model = source.load(getattr(torch, number))
    return TransformersEngine(model.to(device), source.prompt, no_speech_token(source.tokenizer))
