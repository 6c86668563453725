"""From our settings to those of `transformers`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from transformers import Seq2SeqTrainingArguments

from daemon.asr.training import TrainingError
from daemon.asr.whisper.config import TrainingSettings

OURS: Mapping[str, str] = {
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "gradient_accumulation",
    "learning_rate": "learning_rate",
    "gradient_checkpointing": "gradient_checkpointing",
    "activation_checkpointing": "gradient_checkpointing",
    "use_cpu": "device",
    # Of transformers 4:
    "no_cuda": "device",
    "use_mps_device": "device",
    "per_gpu_train_batch_size": "batch_size",
    "warmup_ratio": "warmup",
}
"""Arguments that have a setting of their own -> its name."""
_FIXED = frozenset(
    {
        "accelerator_config",
        "auto_find_batch_size",
        "average_tokens_across_devices",
        "batch_eval_metrics",
        "data_seed",
        "ddp_backend",
        "deepspeed",
        "disable_tqdm",
        "do_eval",
        "do_predict",
        "do_train",
        "eval_strategy",
        "fsdp",
        "hub_always_push",
        "hub_model_id",
        "hub_private_repo",
        "hub_revision",
        "hub_strategy",
        "hub_token",
        "ignore_data_skip",
        "label_names",
        "load_best_model_at_end",
        "logging_nan_inf_filter",
        "logging_steps",
        "logging_strategy",
        "metric_for_best_model",
        "output_dir",
        "parallelism_config",
        "predict_with_generate",
        "prediction_loss_only",
        "push_to_hub",
        "remove_unused_columns",
        "report_to",
        "restore_callback_states_from_checkpoint",
        "resume_from_checkpoint",
        "save_only_model",
        "save_strategy",
        "save_total_limit",
        "torch_compile",
        "train_sampling_strategy",
        # Of transformers 4:
        "fsdp_min_num_params",
        "fsdp_transformer_layer_cls_to_wrap",
        "group_by_length",
        "include_inputs_for_metrics",
        "jit_mode_eval",
        "local_rank",
        "overwrite_output_dir",
        "past_index",
        "push_to_hub_model_id",
        "push_to_hub_organization",
        "push_to_hub_token",
        "save_safetensors",
        "torchdynamo",
        "use_legacy_prediction_loop",
    }
)
"""Arguments on which the rest of the training rests."""


@dataclass(frozen=True, slots=True)
class Batching:
    """How a step's clips reach the device."""

    size: int
    accumulation: int

    @property
    def step(self) -> int:
        """Clips per step."""
        return self.size * self.accumulation

    def smaller(self) -> Batching | None:
        """At most half as many at once and as many per step; None if there is but one at once."""
        return self._at_most(self.size // 2) if self.size > 1 else None

    def shared(self, processes: int) -> Batching:
        """What each of so many processes does of a step, so that it stays as large.

        Raises `TrainingError` if they cannot all do the same.
        """
        if self.step % processes:
            raise TrainingError(
                "settings",
                f"A step of {self.step} clips (batch_size times gradient_accumulation) cannot be shared evenly by "
                f"{processes} processes: choose a gradient_accumulation that {processes} divides.",
            )
        return Batching(self.step // processes, 1)._at_most(self.size)

    def _at_most(self, size: int) -> Batching:
        fitting = next(fewer for fewer in range(min(size, self.step), 0, -1) if self.step % fewer == 0)
        return Batching(fitting, self.step // fitting)


def check(settings: TrainingSettings) -> None:
    """Raise `TrainingError` for a number out of bounds, and for an argument that is unknown or not to be set."""
    for name in ("epochs", "batch_size", "gradient_accumulation", "learning_rate", "eval_steps", "save_steps"):
        value = getattr(settings, name)
        if not (math.isfinite(value) and value > 0):
            raise TrainingError("settings", f"The setting {name} is {value}, and has to be more than 0.")
    known = {each.name for each in dataclasses.fields(Seq2SeqTrainingArguments) if each.init}
    for name in settings.arguments:
        if name not in known:
            near = get_close_matches(name, known - _FIXED, n=1, cutoff=0)[0]
            raise TrainingError("settings", f'Training has no argument "{name}": did you mean {near}?')
        if name in OURS:
            raise TrainingError("settings", f'Set {OURS[name]} instead of the training argument "{name}".')
        if name in _FIXED:
            raise TrainingError("settings", f'The training argument "{name}" is not for you to set: leave it out.')


def count_steps(settings: TrainingSettings, clips: int) -> int:
    """Optimiser steps of a whole training on so many clips."""
    most = settings.arguments.get("max_steps", -1)
    per_epoch = math.ceil(clips / (settings.batch_size * settings.gradient_accumulation))
    return int(most) if most > 0 else math.ceil(settings.epochs * per_epoch)


def precision(settings: TrainingSettings, device: torch.device) -> str:
    """``bfloat16`` where a GPU has it, else ``float32``, unless the arguments name one."""
    chosen = settings.arguments
    if chosen.get("fp16"):
        return "float16"
    brain = chosen.get("bf16", device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False))
    return "bfloat16" if brain else "float32"


def training_arguments(
    settings: TrainingSettings,
    checkpoints: Path,
    *,
    steps: int,
    batching: Batching,
    device: torch.device,
    judged: bool,
) -> Seq2SeqTrainingArguments:
    """The trainer's arguments. `judged`: whether there are held-out clips. Raises `TrainingError` if it refuses one."""
    fields = {each.name for each in dataclasses.fields(Seq2SeqTrainingArguments)}
    # It was renamed within transformers 5.
    checkpointing = "activation_checkpointing" if "activation_checkpointing" in fields else "gradient_checkpointing"
    number = precision(settings, device)
    chosen: dict[str, Any] = {
        "weight_decay": settings.weight_decay,
        "warmup_steps": round(settings.warmup * steps),
        "eval_steps": settings.eval_steps,
        "save_steps": settings.save_steps,
        "per_device_eval_batch_size": 4 * batching.size,  # no gradients are held
        "seed": settings.seed,
        "optim": "adamw_torch_fused",
        "bf16": number == "bfloat16",
        "fp16": number == "float16",
        "dataloader_pin_memory": device.type == "cuda",
        checkpointing: settings.gradient_checkpointing,
        f"{checkpointing}_kwargs": {"use_reentrant": False} if settings.gradient_checkpointing else None,
    }
    fixed: dict[str, Any] = {
        "output_dir": str(checkpoints),
        "max_steps": steps,
        "learning_rate": settings.learning_rate,
        "per_device_train_batch_size": batching.size,
        "gradient_accumulation_steps": batching.accumulation,
        "average_tokens_across_devices": True,  # the loss is one per token of the step, whoever has the token
        "use_cpu": device.type == "cpu",
        "save_strategy": "steps",
        "save_total_limit": None,  # the trainer would remove the old before the new is whole
        "eval_strategy": "steps" if judged else "no",
        "predict_with_generate": False,  # the drafting engine does it
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "logging_steps": 1,  # each loss is looked at
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
    }
    try:
        made = Seq2SeqTrainingArguments(**chosen | dict(settings.arguments) | fixed)
    except (TypeError, ValueError, ImportError) as error:
        raise TrainingError("settings", f"transformers refuses the training arguments: {_line(error)}.") from error
    made._n_gpu = min(1, made.n_gpu)  # several GPUs would share each batch, and the steps would no longer be counted
    return made


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(". ")
