"""Hears with CTranslate2: several times as fast as transformers, in int8 on a CPU and in half precision on NVIDIA."""

from __future__ import annotations

import ctypes
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from daemon.asr.whisper.converted import open_converted
from daemon.asr.whisper.engine import SEED, Source, Spoken

_AUTO = {"cpu": "int8", "cuda": "float16"}
"""Device -> what ``dtype = "auto"`` stands for here."""
_CUBLAS = "libcublas.so.12"
"""What the builds of CTranslate2 4 open on NVIDIA, at the first product of matrices. PyTorch for CUDA 13 brings another
one (OpenNMT/CTranslate2#1933)."""


def numbers(dtype: str, device: torch.device) -> str | None:
    """What the engine would compute in; None if it is not installed, or cannot do so on this device."""
    if find_spec("ctranslate2") is None or device.type not in _AUTO:
        return None
    import ctranslate2

    asked = _AUTO[device.type] if dtype == "auto" else dtype
    try:
        known = ctranslate2.get_supported_compute_types(device.type)
    except (RuntimeError, ValueError):  # this build knows no such device, or its driver fails
        return None
    return asked if asked in known and (device.type == "cpu" or _opens(_CUBLAS)) else None


def why_not(dtype: str, device: torch.device) -> str:
    """A sentence for a person who wants it where `numbers` says no."""
    if find_spec("ctranslate2") is None:
        return "The engine CTranslate2 is not installed: pip install 'ambara[fast]', or choose engine auto."
    if device.type == "cuda" and not _opens(_CUBLAS):
        return f"The engine CTranslate2 needs {_CUBLAS} on this device, which is not there: choose engine auto."
    what = f"device {device.type}" if dtype == "auto" else f"dtype {dtype} on {device.type}"
    return f"The engine CTranslate2 cannot use {what} here: choose engine auto."


def _opens(library: str) -> bool:
    """Whether the process has a shared library, or finds it."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


class CTranslate2Engine:
    """A model of transformers, converted. That one is let go, and is not even loaded where the conversion was kept."""

    name = "ctranslate2"

    def __init__(self, source: Source, device: torch.device, dtype: str) -> None:
        """`dtype`: as `numbers` says. Raises `ModelError` if the weights cannot be used."""
        import ctranslate2

        self.dtype = dtype
        self._ctranslate2 = ctranslate2
        self._prompt = _prompt_tokens(source.generation, source.prompt)
        self._room = source.config.max_target_positions - len(self._prompt)

        def read(folder: Path) -> Any:
            ctranslate2.set_random_seed(SEED)  # of the threads that a model begins: two alike draw the same
            return ctranslate2.models.Whisper(
                str(folder), device=device.type, compute_type=dtype, intra_threads=_threads(device)
            )

        self._model, self.parameters = open_converted(source, dtype, read)

    def hear(self, features: Any, temperature: float = 0.0) -> list[Spoken]:
        """See `Engine.hear`."""
        results = self._model.generate(
            self._encoded(np.ascontiguousarray(features.numpy())),
            [self._prompt] * len(features),
            beam_size=1,
            max_length=2 * max(self._room, len(self._prompt)),  # half of it is what a text may take
            length_penalty=0,  # the sum as it is
            return_scores=True,
            return_no_speech_prob=True,
            sampling_temperature=temperature or 1.0,
            sampling_topk=0 if temperature else 1,
        )
        return [self._spoken(result) for result in results]

    def _encoded(self, features: Any) -> Any:
        """What the decoder is given: spectrograms, or on a CPU what the encoder made of each by itself.

        A layer's intermediate results of one window stay in the processor's cache, those of sixteen do not.
        """
        view = self._ctranslate2.StorageView.from_array
        if self._model.device != "cpu":
            return view(features)
        return view(np.concatenate([np.array(self._model.encode(view(each[None]), to_cpu=True)) for each in features]))

    def _spoken(self, result: Any) -> Spoken:
        tokens = list(result.sequences_ids[0])
        return Spoken(tokens, float(result.scores[0]), len(tokens) < self._room, float(result.no_speech_prob))


def _prompt_tokens(generation: Any, prompt: dict[str, str]) -> list[int]:
    """The tokens that come before the text."""
    tokens = [generation.decoder_start_token_id]
    if prompt:
        tokens += [generation.lang_to_id[f"<|{prompt['language']}|>"], generation.task_to_id[prompt["task"]]]
    return [*tokens, generation.no_timestamps_token_id]


def _threads(device: torch.device) -> int:
    """On a CPU as many as PyTorch would take; 0 leaves it to the library."""
    return min(torch.get_num_threads(), os.cpu_count() or 1) if device.type == "cpu" else 0
