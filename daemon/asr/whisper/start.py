"""Where a training starts from: the base model's files, opened as far as the work needs them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from daemon.asr.errors import ModelError
from daemon.asr.training import TrainingError
from daemon.asr.whisper.config import TrainingSettings, WhisperSettings
from daemon.asr.whisper.dataset import Preparer
from daemon.asr.whisper.files import find_model, fingerprint
from daemon.asr.whisper.load import (
    check_window,
    choose_device,
    hush,
    load_model,
    load_processor,
    prompt_of,
    read_configuration,
)
from daemon.asr.whisper.windows import Windows


@dataclass(frozen=True)
class Start:
    """A base model on disk, and the device to train it on."""

    name: str
    directory: Path
    prompt: dict[str, str]
    """What `generate` takes: language and task, or nothing for an English-only model."""
    room: int
    """Tokens that the decoder holds."""
    device: torch.device
    windows: Windows

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over what the training starts from. Reads every byte."""
        return fingerprint(self.directory, *self.prompt.values())

    @property
    def weights(self) -> int:
        """Bytes."""
        return sum(file.stat().st_size for file in self.directory.glob("model*.safetensors"))

    def processor(self) -> Any:
        """Tokenizer and feature extractor, as they are on disk."""
        return load_processor(self.directory, self.name)

    def preparer(self) -> Preparer:
        """What makes examples of clips."""
        return Preparer(self.processor(), self.prompt, self.room, self.windows)

    def model(self) -> Any:
        """The weights in full precision: the optimiser's small steps would be lost in less."""
        return load_model(self.directory, self.name, torch.float32)


def open_start(settings: TrainingSettings) -> Start:
    """Find the base and see that it can be trained as asked. Raises `TrainingError`."""
    try:
        directory = find_model(settings.base, settings.revision)
        hush()
        config, generation = read_configuration(directory, settings.base)
        asked = WhisperSettings(settings.base, language=settings.language, task=settings.task)
        processor = load_processor(directory, settings.base)
        window_s = processor.feature_extractor.chunk_length
        check_window(settings.base, window_s, config.max_source_positions)
        start = Start(
            name=settings.base,
            directory=directory,
            prompt=prompt_of(asked, generation),
            room=config.max_target_positions,
            device=choose_device(settings.device),
            windows=(Windows.whole if settings.windows == "whole" else Windows.right_sized)(float(window_s)),
        )
    except ModelError as error:
        raise TrainingError("base", str(error)) from error
    return start
