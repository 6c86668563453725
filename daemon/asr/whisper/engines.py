"""Which engine hears, and in what numbers."""

from __future__ import annotations

from typing import Any

import torch

from daemon.asr.errors import ModelError
from daemon.asr.whisper import ctranslate2_engine
from daemon.asr.whisper.config import WhisperSettings
from daemon.asr.whisper.ctranslate2_engine import CTranslate2Engine
from daemon.asr.whisper.engine import Engine
from daemon.asr.whisper.listener import no_speech_token
from daemon.asr.whisper.transformers_engine import TransformersEngine


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


def loaded_as(engine: str, number: str) -> torch.dtype:
    """In what the weights are to be read for an engine."""
    dtype: torch.dtype = torch.float32 if engine == "ctranslate2" else getattr(torch, number)
    return dtype


def build(engine: str, model: Any, tokenizer: Any, prompt: dict[str, str], device: torch.device, number: str) -> Engine:
    """Put a model of transformers, on the CPU so far, on its device. `prompt`: language and task, or nothing."""
    if engine == "ctranslate2":
        return CTranslate2Engine(model, tokenizer, prompt, device, number)
    return TransformersEngine(model.to(device), prompt, no_speech_token(tokenizer))
