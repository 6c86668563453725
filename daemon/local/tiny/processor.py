"""A Whisper processor and generation settings built from nothing: no model hub, no vocabulary files.

The tokenizer is byte-level without a single merge: 256 bytes and Whisper's special tokens. transformers computes a
language's id from its distance to ``<|startoftranscript|>``, so the order of the special tokens is Whisper's own.
"""

from __future__ import annotations

from typing import Any

_END = "<|endoftext|>"
_START = "<|startoftranscript|>"
_TASKS = ("translate", "transcribe")
_CONTROL = ("<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")
_LANGUAGES = 99
"""Models before large-v3 know this many of the languages that transformers lists."""


def build_processor(window_s: int) -> Any:
    """A `WhisperProcessor` whose feature extractor pads to `window_s` seconds; its vocabulary has 363 entries."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import WhisperFeatureExtractor, WhisperProcessor, WhisperTokenizer

    entries = [*sorted(ByteLevel.alphabet()), _END]
    tokenizer = WhisperTokenizer(
        vocab={entry: number for number, entry in enumerate(entries)},
        merges=[],
        unk_token=_END,
        bos_token=_END,
        eos_token=_END,
        pad_token=_END,
    )
    special = [_START, *_language_tokens(), *(f"<|{task}|>" for task in _TASKS), *_CONTROL]
    tokenizer.add_special_tokens({"extra_special_tokens": special})
    return WhisperProcessor(feature_extractor=WhisperFeatureExtractor(chunk_length=window_s), tokenizer=tokenizer)


def generation_config(tokenizer: Any, max_length: int) -> Any:
    """The tables that ``generate(language=, task=)`` looks up, as stock multilingual models carry them."""
    from transformers import GenerationConfig

    number = tokenizer.convert_tokens_to_ids
    end, start = number(_END), number(_START)
    return GenerationConfig(
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=start,
        max_length=max_length,
        return_timestamps=False,
        is_multilingual=True,
        lang_to_id={token: number(token) for token in _language_tokens()},
        task_to_id={task: number(f"<|{task}|>") for task in _TASKS},
        no_timestamps_token_id=number("<|notimestamps|>"),
        prev_sot_token_id=number("<|startofprev|>"),
        suppress_tokens=[start, *(number(f"<|{task}|>") for task in _TASKS), *map(number, _CONTROL[:-1])],
        begin_suppress_tokens=[number("Ġ"), end],
    )


def _language_tokens() -> list[str]:
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    return [f"<|{code}|>" for code in list(LANGUAGES)[:_LANGUAGES]]
