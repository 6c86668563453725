"""Low-rank adaptation: a few small matrices are trained, and merged into the weights at the end."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from daemon.asr.training import TrainingError

_LAYERS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
"""Every linear layer of encoder and decoder; the embedding stays."""


def check(rank: int) -> None:
    """Raise `TrainingError` if ranks are asked for and peft is not there."""
    if rank and find_spec("peft") is None:
        raise TrainingError(
            "settings", "Training with a LoRA rank needs the extra lora: pip install 'ambara[lora]', or leave it out."
        )


def adapted(model: Any, rank: int) -> Any:
    """The model with matrices of this rank to train; with rank 0 the model itself."""
    if not rank:
        return model
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.05, target_modules=_LAYERS))


def merged(model: Any, rank: int) -> Any:
    """An ordinary Whisper again, whose weights hold what was learned."""
    return model.merge_and_unload() if rank else model
