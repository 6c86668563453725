"""One model, loaded, run over everything that it is judged by, and let go."""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from daemon.asr.errors import ModelError, of_the_machine
from daemon.asr.transcriber import SAMPLE_RATE, Draft, Transcriber, Waveform

BATCH = 32
"""Clips in memory at once; the same for both models."""


class CandidateFailedError(ModelError):
    """The candidate does not load or does not hear: it can be turned down, and the live model is not to blame."""


class ClipError(ModelError):
    """A clip to judge by cannot be read, and no model is to blame."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind
        """``anchor`` for a clip of the anchor set, ``data`` for one of the candidate's own."""


class StoppedError(Exception):
    """Somebody wanted it to stop; nothing was decided."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A corrected clip that no model was trained on."""

    clip_id: str
    recording: str
    kind: str
    """``extraction`` or ``reading``; ``anchor`` for a clip of the anchor set."""
    text: str
    """What a person heard."""
    path: Path
    """A 16 kHz mono sound file."""

    def load(self) -> Waveform:
        """The waveform. Raises `ClipError` if the file is gone, no sound, or not 16 kHz mono."""
        import soundfile

        whose = "anchor" if self.kind == "anchor" else "data"
        try:
            audio, rate = soundfile.read(self.path, dtype="float32")
        except (OSError, RuntimeError) as error:
            raise ClipError(f"The held-out clip {self.clip_id} cannot be read: {error}.", whose) from error
        if rate != SAMPLE_RATE or audio.ndim != 1:
            message = f"The held-out clip {self.clip_id} is not {SAMPLE_RATE} Hz mono: export it again."
            raise ClipError(message, whose)
        wave: Waveform = audio
        return wave


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the comparison is, and whether to go on."""

    report: Callable[[int, int], None]
    stop: Callable[[], bool]
    total: int
    """Clips of both models."""


def hear(
    load: Callable[[], Transcriber],
    sounds: Iterable[Callable[[], Waveform]],
    progress: Progress,
    done: int,
    *,
    blame: type[ModelError],
) -> tuple[list[Draft], dict[str, Any]]:
    """Every sound's draft, in order, and the facts of the model; `done` is how many clips were heard before.

    Raises `blame` if the model does not load, fails on the sounds, or answers with what is no number; `ClipError` if a
    sound cannot be read; `StoppedError` between batches when asked to; the device's own error when the device fails or
    its memory runs out.
    """
    try:
        model = load()
    except ModelError as error:
        raise blame(str(error)) from error
    drafts: list[Draft] = []
    for batch in _batches(sounds):
        if progress.stop():
            raise StoppedError("The comparison was stopped; it begins anew when it is asked for again.")
        drafts += _heard(model, [sound() for sound in batch], blame)
        progress.report(done + len(drafts), progress.total)
    return drafts, model.describe()


def free() -> None:
    """Give back the memory of models that nobody holds any more, the device's as well."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _batches(sounds: Iterable[Callable[[], Waveform]]) -> Iterator[list[Callable[[], Waveform]]]:
    rest = iter(sounds)
    while batch := list(islice(rest, BATCH)):
        yield batch


def _heard(model: Transcriber, batch: Sequence[Waveform], blame: type[ModelError]) -> list[Draft]:
    try:
        drafts = model.transcribe(batch)
    except Exception as error:
        if of_the_machine(error):
            raise
        raise blame(f"The model {model.name} fails on held-out clips: {type(error).__name__}: {error}") from error
    if len(drafts) != len(batch):
        raise blame(f"The model {model.name} made {len(drafts)} drafts of {len(batch)} clips.")
    if not all(draft.confidence is None or math.isfinite(draft.confidence) for draft in drafts):
        raise blame(f"The model {model.name} computes values that are not numbers: its training went wrong.")
    return drafts
