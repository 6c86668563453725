"""The model families: another one is a folder beside `whisper/` and a line in the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from inspect import signature
from typing import Any, TypeVar

from daemon.asr.errors import ModelError
from daemon.asr.transcriber import Transcriber

T = TypeVar("T")


def _whisper(options: Mapping[str, Any]) -> Transcriber:
    from daemon.asr.whisper.config import WhisperSettings
    from daemon.asr.whisper.load import load_transcriber  # late: torch and transformers take seconds

    return load_transcriber(_settings(WhisperSettings, options))


def _settings(kind: Callable[..., T], options: Mapping[str, Any]) -> T:
    known = signature(kind).parameters
    for option in options:
        if option not in known:
            near = get_close_matches(option, known, n=1, cutoff=0)[0]
            raise ModelError(f'A model has no setting "{option}": did you mean {near}?')
    return kind(**options)


FAMILIES: Mapping[str, Callable[[Mapping[str, Any]], Transcriber]] = {
    "whisper": _whisper,
}


def load(family: str, options: Mapping[str, Any]) -> Transcriber:
    """Load a model of a family; `options` are the fields of the family's settings, `model` first of all.

    Raises `ModelError` if the family is unknown or the model cannot serve.
    """
    if family not in FAMILIES:
        near = get_close_matches(family, FAMILIES, n=1, cutoff=0)[0]
        raise ModelError(f'There is no model family "{family}": did you mean {near}?')
    return FAMILIES[family](options)
