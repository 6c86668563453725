"""What transformers 4 does otherwise than 5. Everything else here is written so that both understand it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def open_processor(directory: Path) -> Any:
    """Tokenizer and feature extractor of a Whisper that either major has saved. Raises whatever the library does."""
    import transformers

    # Without the last, a person at a terminal is asked whether to run the code that the model brings.
    safely = {"local_files_only": True, "trust_remote_code": False}
    if int(transformers.__version__.partition(".")[0]) >= 5:
        return transformers.WhisperProcessor.from_pretrained(directory, **safely)
    return transformers.WhisperProcessor(
        feature_extractor=transformers.WhisperFeatureExtractor.from_pretrained(directory, **safely),
        tokenizer=transformers.WhisperTokenizerFast.from_pretrained(directory, **safely, **_special_tokens(directory)),
    )


def _special_tokens(directory: Path) -> dict[str, Any]:
    """5 writes a list where 4 expects a table, and it is 4's `additional_special_tokens`."""
    file = directory / "tokenizer_config.json"
    listed = json.loads(file.read_text(encoding="utf-8")).get("extra_special_tokens") if file.is_file() else None
    return {"additional_special_tokens": listed, "extra_special_tokens": {}} if isinstance(listed, list) else {}
