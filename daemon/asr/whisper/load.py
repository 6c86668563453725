"""From settings to a `WhisperTranscriber`, or to one sentence that says what is wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.asr.device import Device, keep_memory, measure
from daemon.asr.errors import DeviceAwayError, ModelError, of_the_machine
from daemon.asr.whisper.config import WhisperSettings
from daemon.asr.whisper.files import find_model, fingerprint
from daemon.asr.whisper.languages import resolve_language
from daemon.asr.whisper.majors import open_model, open_processor
from daemon.asr.whisper.windows import read_windows

_USUAL, _MOST = 16, 64
"""Windows on a device at once."""
_PASSING = 16
"""So many times as wide as the model is all that a layer holds at a time, of each position."""

if TYPE_CHECKING:
    import torch

    from daemon.asr.whisper.transcribe import WhisperTranscriber


def load_transcriber(settings: WhisperSettings) -> WhisperTranscriber:
    """Load a Whisper from the hub or a directory: safetensors only, never code from the model.

    Raises `ModelError` for everything that a person can mend.
    """
    directory = find_model(settings.model, settings.revision)
    hush()
    keep_memory()
    from daemon.asr.whisper import engines
    from daemon.asr.whisper.listener import Listener
    from daemon.asr.whisper.transcribe import WhisperTranscriber

    device = choose_device(settings.device)
    chosen, number = engines.choose(settings, device)
    processor = load_processor(directory, settings.model)
    config, generation = read_configuration(directory, settings.model)
    window_s = processor.feature_extractor.chunk_length
    check_window(settings.model, window_s, config.max_source_positions)
    windows = read_windows(directory, settings.model, float(window_s))
    prompt = prompt_of(settings, generation)
    at_once = settings.batch_size or windows_at_once(config, measure(device, number))
    source = engines.Source(
        fingerprint=fingerprint(directory, *prompt.values()),
        tokenizer=processor.tokenizer,
        config=config,
        generation=generation,
        prompt=prompt,
        load=lambda dtype: load_model(directory, settings.model, dtype),
        converted=Path(settings.converted) if settings.converted else None,
    )
    engine = engines.build(chosen, source, device, number)
    return WhisperTranscriber(
        Listener(engine, processor, windows, at_once, settings.guards),
        name=settings.model,
        fingerprint=source.fingerprint,
        window_s=float(window_s),
        guard_settings=settings.guards,
        facts={
            "family": "whisper",
            "engine": engine.name,
            "device": str(device),
            "dtype": engine.dtype,
            "windows": str(windows),
            "at_once": at_once,
            "language": prompt.get("language", "en"),
            "task": settings.task,
            "parameters": engine.parameters,
        },
    )


def model_fingerprint(settings: WhisperSettings) -> str:
    """The `fingerprint` that `load_transcriber` gives this model, without its weights in memory.

    Raises `ModelError` as that does.
    """
    directory = find_model(settings.model, settings.revision)
    return fingerprint(directory, *read_prompt(settings, directory).values())


def read_prompt(settings: WhisperSettings, directory: Path) -> dict[str, str]:
    """`prompt_of` the model in `directory`, without its weights in memory. Raises `ModelError`."""
    hush()
    return prompt_of(settings, read_configuration(directory, settings.model)[1])


def read_configuration(directory: Path, name: str) -> tuple[Any, Any]:
    """`WhisperConfig` and `GenerationConfig` of the model in `directory`. Raises `ModelError`."""
    from transformers import GenerationConfig, WhisperConfig

    try:
        config = WhisperConfig.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # huggingface_hub checks the values, and has errors of its own for them
        if of_the_machine(error):
            raise
        raise ModelError(f"The config.json of {name} cannot be read: copy the model again.") from error
    if not (directory / "generation_config.json").exists():
        return config, GenerationConfig()  # it has no table of languages, and that is said
    try:
        return config, GenerationConfig.from_pretrained(directory, local_files_only=True)
    except Exception as error:
        if of_the_machine(error):
            raise
        raise ModelError(f"The generation_config.json of {name} cannot be read: copy the model again.") from error


def hush() -> None:
    """transformers logs its own internals at every call and draws progress bars: errors only, unless asked for more."""
    from transformers.utils import logging

    if "TRANSFORMERS_VERBOSITY" not in os.environ:
        logging.set_verbosity_error()
    logging.disable_progress_bar()


def choose_device(asked: str) -> torch.device:
    """The best device that is there, or the one that was asked for. Raises `ModelError` if that one is absent."""
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return torch.device(next(name for name, there in present.items() if there))
    if not present.get(asked, False):
        there = " or ".join(name for name, is_there in present.items() if is_there)
        raise DeviceAwayError(f"This machine has no device {asked} that PyTorch can use: choose auto, or {there}.")
    return torch.device(asked)


def look_at_device(settings: WhisperSettings) -> Device:
    """The device that a model would be put on. Raises `ModelError` if it is absent or cannot compute so."""
    from daemon.asr.whisper import engines

    device = choose_device(settings.device)
    return measure(device, engines.choose(settings, device)[1])


def windows_at_once(config: Any, device: Device) -> int:
    """How many whole windows go onto a device together.

    On a graphics card, as many as a quarter of what is free has room for: the weights come there as well, and a trainer
    may. What a window takes are the decoder's keys and values, and what passes through a layer of the encoder.
    """
    if not device.name.startswith("cuda"):
        return _USUAL
    positions, width = config.max_source_positions, config.d_model
    kept = 2 * config.decoder_layers * (positions + config.max_target_positions) * width
    size = 4 if device.dtype == "float32" else 2
    fit = int(device.free // 4 // (size * (kept + _PASSING * positions * width)))
    return max(1, min(_MOST, fit))


def load_processor(directory: Path, name: str) -> Any:
    try:
        return open_processor(directory)
    except Exception as error:  # tokenizers raises bare Exception for a broken tokenizer.json
        if of_the_machine(error):
            raise
        raise ModelError(
            f"The tokenizer or feature extractor of {name} cannot be read: copy the model again."
        ) from error


def load_model(directory: Path, name: str, dtype: torch.dtype) -> Any:
    import torch
    from safetensors import SafetensorError

    try:
        model, report = open_model(directory, dtype)
    except (OSError, RuntimeError, SafetensorError, ValueError, KeyError, TypeError) as error:
        if of_the_machine(error):
            raise
        raise ModelError(f"The weights of {name} cannot be read: copy the model again.") from error
    if report["missing_keys"]:
        raise ModelError(
            f"The weights of {name} lack {min(report['missing_keys'])}: copy the model again, or train it to the end."
        )
    if not all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
        raise ModelError(f"The weights of {name} hold values that are not numbers: its training went wrong.")
    return model.eval()


def check_window(name: str, window_s: int, positions: int) -> None:
    frames_per_s = 50
    if window_s * frames_per_s != positions:
        raise ModelError(
            f"The feature extractor of {name} hears {window_s} s and its encoder {positions / frames_per_s:g} s: "
            "they belong to different models."
        )


def prompt_of(settings: WhisperSettings, generation: Any) -> dict[str, str]:
    """What `generate` is told: language and task, or nothing where the model knows English only."""
    if getattr(generation, "is_multilingual", True) is False:
        if settings.language.lower() not in ("en", "english") or settings.task != "transcribe":
            raise ModelError(
                f"{settings.model} knows English only and cannot {settings.task} {settings.language}: "
                "choose a multilingual Whisper such as openai/whisper-small."
            )
        return {}
    tokens = getattr(generation, "lang_to_id", None)
    if not tokens:
        raise ModelError(
            f"The generation_config.json of {settings.model} has no table of languages: "
            "copy that file from the model it was trained from."
        )
    known = [token.removeprefix("<|").removesuffix("|>") for token in tokens]
    return {"language": resolve_language(settings.language, known), "task": settings.task}
