"""The model families: another one is a folder beside `whisper/` and a line in the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

from daemon.asr.device import Device
from daemon.asr.errors import ModelError
from daemon.asr.training import Plan, Progress, TrainingError, TrainingResult
from daemon.asr.transcriber import Transcriber

T = TypeVar("T")


def _whisper(options: Mapping[str, Any]) -> Transcriber:
    from daemon.asr.whisper.config import WhisperSettings
    from daemon.asr.whisper.load import load_transcriber  # late: torch and transformers take seconds

    return load_transcriber(_settings(WhisperSettings, options))


def _train_whisper(options: Mapping[str, Any], *where: Path, **how: Any) -> TrainingResult:
    from daemon.asr.whisper.config import TrainingSettings

    settings = _settings(TrainingSettings, options, "Training")
    from daemon.asr.whisper.train import train  # late, as above

    return train(settings, *where, **how)


def _plan_whisper(options: Mapping[str, Any], data: Path, report: Callable[[Progress], None]) -> Plan:
    from daemon.asr.whisper.config import TrainingSettings

    settings = _settings(TrainingSettings, options, "Training")
    from daemon.asr.whisper.train import plan

    return plan(settings, data, report=report)


def _fingerprint_whisper(options: Mapping[str, Any]) -> str:
    from daemon.asr.whisper.config import WhisperSettings
    from daemon.asr.whisper.load import model_fingerprint

    return model_fingerprint(_settings(WhisperSettings, options))


def _find_whisper(options: Mapping[str, Any]) -> Path:
    from daemon.asr.whisper.config import WhisperSettings
    from daemon.asr.whisper.files import find_model

    settings = _settings(WhisperSettings, options)
    return find_model(settings.model, settings.revision)


def _cached_whisper(options: Mapping[str, Any]) -> Path:
    from daemon.asr.whisper.config import WhisperSettings
    from daemon.asr.whisper.files import find_model

    settings = _settings(WhisperSettings, options)
    return find_model(settings.model, settings.revision, fetch=False)


def _offered_whisper(options: Mapping[str, Any]) -> bool:
    from daemon.asr.whisper.config import WhisperSettings
    from daemon.asr.whisper.files import offered

    settings = _settings(WhisperSettings, options)
    return offered(settings.model, settings.revision)


def _language_whisper(options: Mapping[str, Any], directory: Path) -> str:
    from daemon.asr.whisper.config import WhisperSettings
    from daemon.asr.whisper.load import read_prompt

    return read_prompt(_settings(WhisperSettings, options), directory).get("language", "en")


def _device_whisper(options: Mapping[str, Any]) -> Device:
    from daemon.asr.whisper.config import WhisperSettings
    from daemon.asr.whisper.load import look_at_device

    return look_at_device(_settings(WhisperSettings, options))


def _settings(kind: Callable[..., T], options: Mapping[str, Any], what: str = "A model") -> T:
    known = signature(kind).parameters
    for option in options:
        if option not in known:
            near = get_close_matches(option, known, n=1, cutoff=0)[0]
            raise ModelError(f'{what} has no setting "{option}": did you mean {near}?')
    return kind(**options)


FAMILIES: Mapping[str, Callable[[Mapping[str, Any]], Transcriber]] = {
    "whisper": _whisper,
}
TRAINERS: Mapping[str, Callable[..., TrainingResult]] = {
    "whisper": _train_whisper,
}
PLANNERS: Mapping[str, Callable[[Mapping[str, Any], Path, Callable[[Progress], None]], Plan]] = {
    "whisper": _plan_whisper,
}
FINGERPRINTS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "whisper": _fingerprint_whisper,
}
FINDERS: Mapping[str, Callable[[Mapping[str, Any]], Path]] = {
    "whisper": _find_whisper,
}
CACHES: Mapping[str, Callable[[Mapping[str, Any]], Path]] = {
    "whisper": _cached_whisper,
}
OFFERS: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "whisper": _offered_whisper,
}
LANGUAGES: Mapping[str, Callable[[Mapping[str, Any], Path], str]] = {
    "whisper": _language_whisper,
}
DEVICES: Mapping[str, Callable[[Mapping[str, Any]], Device]] = {
    "whisper": _device_whisper,
}


def load(family: str, options: Mapping[str, Any]) -> Transcriber:
    """Load a model of a family; `options` are the fields of the family's settings, `model` first of all.

    Raises `ModelError` if the family is unknown or the model cannot serve.
    """
    return _of(FAMILIES, family)(options)


def fingerprint(family: str, options: Mapping[str, Any]) -> str:
    """The fingerprint that `load` gives a model with these options, without its weights in memory.

    Raises `ModelError` as `load` does.
    """
    return _of(FINGERPRINTS, family)(options)


def find(family: str, options: Mapping[str, Any]) -> Path:
    """The directory of a model, fetched from the hub if need be. Raises `ModelError` if there is none."""
    return _of(FINDERS, family)(options)


def cached(family: str, options: Mapping[str, Any]) -> Path:
    """The directory of a model that is on this machine. Raises `ModelError` if it is not; the hub is not asked."""
    return _of(CACHES, family)(options)


def offered(family: str, options: Mapping[str, Any]) -> bool:
    """Whether the hub would have to be asked for a model, and has it. Raises `ModelError` if it has not."""
    return _of(OFFERS, family)(options)


def language(family: str, options: Mapping[str, Any], directory: Path) -> str:
    """The code of the language that the model in `directory` would be asked for. Raises `ModelError` as `load` does."""
    return _of(LANGUAGES, family)(options, directory)


def device(family: str, options: Mapping[str, Any]) -> Device:
    """Where `load` would put a model, and how much room there is. Raises `ModelError` as that does."""
    return _of(DEVICES, family)(options)


def train(
    family: str,
    options: Mapping[str, Any],
    data: Path,
    out: Path,
    *,
    report: Callable[[Progress], None],
    stop: Callable[[], bool],
    resume: bool,
) -> TrainingResult:
    """Fine-tune a model of a family on the audiofolder `data` into ``out/model``.

    `options` are the fields of the family's training settings, ``base`` first of all. `stop` is asked at every step;
    when it says yes, a checkpoint is written and the result says `stopped`. `resume` goes on from the newest whole
    checkpoint, where there is one. Raises `TrainingError`.
    """
    try:
        trainer = _of(TRAINERS, family)
        return trainer(options, data, out, report=report, stop=stop, resume=resume)
    except ModelError as error:
        raise TrainingError("settings", str(error)) from error


def plan(
    family: str, options: Mapping[str, Any], data: Path, *, report: Callable[[Progress], None] = lambda _: None
) -> Plan:
    """What `train` would do with these. Writes nothing. Raises `TrainingError`."""
    try:
        return _of(PLANNERS, family)(options, data, report)
    except ModelError as error:
        raise TrainingError("settings", str(error)) from error


def _of(table: Mapping[str, T], family: str) -> T:
    if family not in table:
        near = get_close_matches(family, table, n=1, cutoff=0)[0]
        raise ModelError(f'There is no model family "{family}": did you mean {near}?')
    return table[family]
