"""What transformers 4 does otherwise than 5. Everything else here is written so that both understand it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_SAFELY = {"local_files_only": True, "trust_remote_code": False}
"""Without the second, a person at a terminal is asked whether to run the code that the model brings."""


def open_processor(directory: Path) -> Any:
    """Tokenizer and feature extractor of a Whisper that either major has saved. Raises whatever the library does."""
    import transformers

    if not _is_4():
        return transformers.WhisperProcessor.from_pretrained(directory, **_SAFELY)
    return transformers.WhisperProcessor(
        feature_extractor=transformers.WhisperFeatureExtractor.from_pretrained(directory, **_SAFELY),
        tokenizer=transformers.WhisperTokenizerFast.from_pretrained(directory, **_SAFELY, **_special_tokens(directory)),
    )


def open_model(directory: Path, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """Weights, from safetensors alone, and the library's report on them. Raises whatever the library does."""
    from transformers import WhisperForConditionalGeneration as Whisper

    # 4 runs a model folder's custom_generate/generate.py, whatever it is told about trust.
    kind: Any = type(Whisper.__name__, (Whisper,), {"load_custom_generate": _no_code}) if _is_4() else Whisper
    model, report = kind.from_pretrained(
        directory, dtype=dtype, use_safetensors=True, output_loading_info=True, **_SAFELY
    )
    return model, report


def _is_4() -> bool:
    from transformers import __version__

    return int(__version__.partition(".")[0]) < 5


def _no_code(*_: Any, **__: Any) -> None:
    raise OSError("A model's own code is not run.")


def _special_tokens(directory: Path) -> dict[str, Any]:
    """5 writes a list where 4 expects a table, and it is 4's `additional_special_tokens`."""
    file = directory / "tokenizer_config.json"
    listed = json.loads(file.read_text(encoding="utf-8")).get("extra_special_tokens") if file.is_file() else None
    return {"additional_special_tokens": listed, "extra_special_tokens": {}} if isinstance(listed, list) else {}
