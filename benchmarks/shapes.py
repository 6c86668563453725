"""Whispers of the real sizes, with random weights, that say the same sentence to whatever they hear.

So every engine has the same work to do, token for token, on a machine that has no model hub. The decoder's positions
are set so large that they alone decide what is said, and when it ends; all the arithmetic is done as in a real one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.local.tiny.processor import build_processor, generation_config

SENTENCE = "mividy trondro telo izy androany maraina"
"""40 letters, each a token of the byte-level vocabulary."""
_WINDOW_S = 30
_PROMPT = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """The figures of a published Whisper."""

    width: int
    layers: int
    heads: int
    mels: int = 80
    vocabulary: int = 51_865
    positions: int = 448


SHAPES = {
    "micro": Shape(128, 1, 2, vocabulary=384),  # nobody's: to try a benchmark out
    "tiny": Shape(384, 4, 6),
    "base": Shape(512, 6, 8),
    "small": Shape(768, 12, 12),
    "large-v3": Shape(1280, 32, 20, mels=128, vocabulary=51_866),
}


def make(name: str, folder: Path) -> Path:
    """Write such a model, with its processor, as the hub would give it. Returns `folder`."""
    import torch
    from transformers import WhisperFeatureExtractor, WhisperProcessor

    shape = SHAPES[name]
    torch.manual_seed(0)
    processor = build_processor(_WINDOW_S)
    if shape.mels != processor.feature_extractor.feature_size:
        extractor = WhisperFeatureExtractor(feature_size=shape.mels, chunk_length=_WINDOW_S)
        processor = WhisperProcessor(feature_extractor=extractor, tokenizer=processor.tokenizer)
    model = _random(shape, processor.tokenizer)
    _teach(model, processor.tokenizer)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _random(shape: Shape, tokenizer: Any) -> Any:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    settings = generation_config(tokenizer, shape.positions)
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=shape.vocabulary,
            num_mel_bins=shape.mels,
            d_model=shape.width,
            encoder_layers=shape.layers,
            decoder_layers=shape.layers,
            encoder_attention_heads=shape.heads,
            decoder_attention_heads=shape.heads,
            encoder_ffn_dim=4 * shape.width,
            decoder_ffn_dim=4 * shape.width,
            max_source_positions=50 * _WINDOW_S,
            max_target_positions=shape.positions,
            pad_token_id=settings.pad_token_id,
            bos_token_id=settings.bos_token_id,
            eos_token_id=settings.eos_token_id,
            decoder_start_token_id=settings.decoder_start_token_id,
            suppress_tokens=None,
            begin_suppress_tokens=None,
        )
    )
    model.generation_config = settings
    return model


def _teach(model: Any, tokenizer: Any) -> None:
    """Let each position stand for the token that is to be said there."""
    import torch

    said = [*tokenizer(SENTENCE, add_special_tokens=False).input_ids, model.generation_config.eos_token_id]
    decoder = model.get_decoder()
    with torch.no_grad():
        directions = torch.randn(len(said), model.config.d_model)
        directions -= directions.mean(1, keepdim=True)  # the last layer's normalisation would take it away
        directions /= directions.norm(dim=1, keepdim=True)
        for at in range(len(said)):
            decoder.embed_positions.weight[_PROMPT - 1 + at] = 300 * directions[at]
        decoder.embed_positions.weight[_PROMPT - 1 + len(said) :] = 300 * directions[-1]
        for token in set(said):
            its = [direction for direction, each in zip(directions, said, strict=True) if each == token]
            decoder.embed_tokens.weight[token] = 5 * torch.stack(its).sum(0)
