"""The sections of the settings, with their defaults and their bounds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    model_validator,
)

_Text = Annotated[str, StringConstraints(min_length=1, max_length=500)]


def _place(value: object, info: ValidationInfo) -> object:
    """A path as people write it: ``~/`` is the home, and a relative one starts at the file that names it."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        raise ValueError("it is empty, and should name a directory")
    base, home = (info.context or {}).get("base", Path()), (info.context or {}).get("home", Path.home())
    return home / value[2:] if value.startswith("~/") else base / value


_LARGEST_PORT = 65_535
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Place = Annotated[Path, BeforeValidator(_place), Field(strict=False)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class SupabaseSettings(Section):
    """The project. `key` says whose rights the daemon has; `apikey` is what the project's gateway wants to see, and the
    same unless the daemon has a role of its own. Neither ever shows itself in `repr` or `str`."""

    url: str
    key: SecretStr
    apikey: SecretStr
    bucket: _Text = "clips"


class ModelSettings(Section):
    """The model that drafts."""

    family: _Text = "whisper"
    base: _Text = "openai/whisper-small"
    revision: _Text | None = None
    language: _Text = "mg"
    task: Literal["transcribe", "translate"] = "transcribe"
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    engine: Literal["auto", "transformers", "ctranslate2"] = "auto"


class DraftingSettings(Section):
    """How much is drafted at a time, and whether drafts say which clips people should correct first.

    The sizes that are None fit the device: see `daemon.parts.pipeline_settings`.
    """

    batch_clips: Annotated[int, Field(ge=1, le=512)] | None = None
    batch_seconds: Annotated[float, Field(ge=30, le=7200, allow_inf_nan=False)] | None = None
    claim_clips: Annotated[int, Field(ge=1, le=1000)] | None = None
    batches_per_turn: Annotated[int, Field(ge=1, le=1000)] = 64
    lease_seconds: Annotated[float, Field(ge=10, le=3600, allow_inf_nan=False)] = 20.0
    sweep_seconds: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] = 30.0
    fetches: Annotated[int, Field(ge=1, le=64)] = 16
    useful_first: bool = False

    @model_validator(mode="after")
    def _a_claim_fills_a_batch(self) -> Self:
        if self.claim_clips and self.batch_clips and self.claim_clips < self.batch_clips:
            raise ValueError(f"claim_clips ({self.claim_clips}) is less than batch_clips ({self.batch_clips})")
        return self


class AudioSettings(Section):
    """Where audio is besides the bucket, and how much of it one clip may be."""

    run_dirs: Mapping[str, Place] = Field(default_factory=dict)
    max_minutes: Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)] = 30.0
    max_mebibytes: Annotated[int, Field(ge=1, le=4096)] = 200


class RealtimeSettings(Section):
    """Whether changes are listened for. Without it the sweep finds them."""

    enabled: bool = True
    canary_seconds: Annotated[float, Field(ge=5, le=3600, allow_inf_nan=False)] = 60.0


class TrainingSettings(Section):
    """When the daemon fine-tunes, and how."""

    enabled: bool = True
    min_new_clips: Annotated[int, Field(ge=1)] = 50
    min_new_minutes: _Positive = 10.0
    growth: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 0.25
    cooldown_minutes: Annotated[float, Field(ge=0, le=1440, allow_inf_nan=False)] = 15.0
    hours: Annotated[str, StringConstraints(pattern=r"^(([01]?\d|2[0-3])-([01]?\d|2[0-4]))?$")] = ""
    held_out_share: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.15
    start_from: Literal["base", "live"] = "base"
    rehearsal: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 1.0
    epochs: _Positive = 10.0
    batch_size: Annotated[int, Field(ge=1, le=512)] = 4
    gradient_accumulation: Annotated[int, Field(ge=1, le=1024)] = 2
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    rendezvous: Annotated[str, StringConstraints(pattern=r"^(\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):0*[1-9]\d{0,4}$|^$")] = ""
    learning_rate: _Positive = 1e-5
    gradient_checkpointing: bool = False
    spec_augment: bool = True
    windows: Literal["whole", "right-sized"] = "whole"
    lora_rank: Annotated[int, Field(ge=0, le=512)] = 0
    arguments: Mapping[str, bool | int | float | str] = Field(default_factory=dict)
    push_to_hub: str = ""

    @model_validator(mode="after")
    def _processes_share_a_step(self) -> Self:
        step = self.batch_size * self.gradient_accumulation
        if step % (self.processes * self.nodes):
            on = f" on each of nodes ({self.nodes})" if self.nodes > 1 else ""
            raise ValueError(
                f"processes ({self.processes}){on} cannot share a step of batch_size times gradient_accumulation, "
                f"{step} clips, evenly: choose a number that divides {step}"
            )
        if self.nodes > 1 and not self.rendezvous:
            raise ValueError(
                f'nodes ({self.nodes}) need a rendezvous, an address and a free port of this machine: "10.0.0.1:29500"'
            )
        if int(self.rendezvous.rpartition(":")[2] or 0) > _LARGEST_PORT:
            raise ValueError(f"rendezvous ({self.rendezvous}) has no port of 1 to {_LARGEST_PORT}")
        return self

    def window(self) -> tuple[int, int] | None:
        """First hour, and the one before which a run must begin."""
        first, _, last = self.hours.partition("-")
        return (int(first), int(last)) if self.hours else None


class PromotionSettings(Section):
    """When a candidate is better."""

    min_gain: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.01
    confidence: Annotated[float, Field(ge=0.5, lt=1, allow_inf_nan=False)] = 0.95
    min_clips: Annotated[int, Field(ge=1)] = 20
    min_recordings: Annotated[int, Field(ge=2)] = 2
    anchor: Place | None = None
    rollback: Literal["off", "auto"] = "off"


class StateSettings(Section):
    """What outlives a restart."""

    directory: Place


class RetentionSettings(Section):
    """What is kept of what grows. What serves, what may serve next, what a roll-back returns to and what is pinned stay
    whatever stands here."""

    versions: Annotated[int, Field(ge=0, le=1000)] = 2
    gibibytes: _Positive = 20.0
    logs_days: Annotated[int, Field(ge=1, le=36500)] = 365
    drafts_days: Annotated[int, Field(ge=0, le=36500)] = 0


class StatusSettings(Section):
    """The page that people look at."""

    enabled: bool = True
    host: _Text = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8765


class LogSettings(Section):
    """What is logged, and how it looks."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
