"""Settings of the Whisper family. Importing this loads neither torch nor transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Device = Literal["auto", "cuda", "mps", "cpu"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]
Engine = Literal["auto", "transformers", "ctranslate2"]
Task = Literal["transcribe", "translate"]


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """Where a draft stops being believed. Log-probabilities are natural and per token."""

    silence_dbfs: float = -70.0
    """The loudest stretch of speech band below this is silence; 0 is a full-scale square wave."""
    steady_db: float = 4.0
    """Less than this between the quiet and the loud moments is a steady noise: speech rises and falls."""
    no_speech_probability: float = 0.6
    no_speech_log_probability: float = -1.0
    """Whisper's rule: no speech if the no-speech token is likelier than the former and the text worse than this."""
    compression_ratio: float = 2.4
    """A text that zlib shrinks more than this repeats itself."""
    different_pairs: float = 0.75
    """So does a text of which this share, or less, of the pairs of neighbouring words are different ones."""
    low_log_probability: float = -1.0
    temperatures: tuple[float, ...] = (0.4, 0.8)
    """At which words are drawn, one after the other, where the likeliest ones repeat themselves or find no end."""
    copied: float = 0.75
    """A sound of which a larger share than this comes again, wave for wave, was played and not spoken."""
    gliding: float = 0.25
    """Where the pitch moves in a smaller share of the frames that have one, it is hardly a voice."""
    pitched: float = 0.1
    """Nor is it one where fewer of the loud frames have a pitch."""


@dataclass(frozen=True, slots=True)
class WhisperSettings:
    """What to load and how to run it."""

    model: str
    """A hub id or a directory."""
    revision: str | None = None
    """Branch, tag or commit on the hub; ignored for a directory."""
    language: str = "mg"
    """Code or English name, as Whisper knows it."""
    task: Task = "transcribe"
    device: Device = "auto"
    dtype: Precision = "auto"
    """``auto`` is float16 on CUDA; elsewhere float32, or int8 with CTranslate2, which has seven of the eight bits."""
    batch_size: int | None = None
    """Whole windows on the device at once, or as much of shorter ones; halved when its memory runs out. None: 16, and
    on a graphics card as many as fit into a quarter of its memory, 64 at most."""
    engine: Engine = "auto"
    """``auto`` is CTranslate2 where it is installed and knows the device, and transformers elsewhere."""
    converted: str | None = None
    """A directory, there or not, where the model may be kept as CTranslate2 reads it. None: it is converted anew."""
    guards: GuardSettings = field(default_factory=GuardSettings)


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """What to fine-tune, and how. The last weights are kept: none are chosen by how they do on held-out clips."""

    base: str = "openai/whisper-small"
    """The model to start from: a hub id or a directory."""
    revision: str | None = None
    """Branch, tag or commit on the hub; ignored for a directory."""
    language: str = "mg"
    """Code or English name, as Whisper knows it."""
    task: Task = "transcribe"
    device: Device = "auto"
    epochs: float = 10.0
    batch_size: int = 4
    """Clips on the device at once. When its memory runs out, fewer, with more accumulation: a step stays as large."""
    gradient_accumulation: int = 2
    """Batches per step."""
    learning_rate: float = 1e-5
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = 0.01
    eval_steps: int = 50
    """Steps between two looks at held-out clips."""
    eval_clips: int = 50
    """How many of those at most, evenly spread over the held-out side. The result is only told."""
    save_steps: int = 100
    """Steps between two checkpoints."""
    gradient_checkpointing: bool = False
    """Less memory for a third more time."""
    spec_augment: bool = True
    """Hide stretches of the spectrogram while training."""
    windows: Literal["whole", "right-sized"] = "whole"
    """In windows as long as the clips, or in whole ones; the model is served as it was trained."""
    lora_rank: int = 0
    """Above 0, train that many ranks of low-rank matrices (peft) and merge them into the weights at the end."""
    seed: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of `transformers.Seq2SeqTrainingArguments`, by name."""
