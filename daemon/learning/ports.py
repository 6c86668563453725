"""Values that cross the rooms of the learning loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Side(StrEnum):
    """Of a recording, for ever."""

    TRAIN = "train"
    HELD_OUT = "held-out"


@dataclass(frozen=True, slots=True)
class Sample:
    """A corrected clip as the database has it."""

    clip_id: str
    run_id: str
    file_name: str
    recording: str
    """`source_file`, else the run's id."""
    side: Side
    kind: str
    """Of its run: ``extraction`` or ``reading``."""
    text: str | None
    """None where the words are no longer those that the run counted."""
    text_md5: str
    duration_s: float | None
    label: str
    """Of its run."""
    seen: bool = False
    """An earlier run has finished with it, in these words."""


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A run that this worker holds, until its lease ends."""

    id: int
    version: int
    """The number of the version that it makes; its folder is ``models/{version:04}``."""
    fence: int
    """Rises with every worker that takes the run over; a word under an older number is not heard."""
    attempts: int
    """1 for the first worker."""
    left_out: Mapping[str, int]
    """Reason -> corrected clips that the database itself left out."""


@dataclass(frozen=True, slots=True)
class Version:
    """A row of `model_versions`."""

    id: int
    name: str
    fingerprint: str
    kind: str
    """``base``, ``manual`` or ``trained``."""
    stage: str
    """``training``, ``candidate``, ``live``, ``retired`` or ``rejected``."""
    live_seq: int | None
    pinned: bool
    reason: str | None
    """Why it is what it is, in words."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    created_at: str = ""
    live_at: str | None = None
    drafts: int = 0
    """How many drafts of it stand in the log."""


@dataclass(frozen=True, slots=True)
class ChildDone:
    """The child did what it was asked."""

    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ChildStopped:
    """It was asked to stop, and left a whole checkpoint (or had nothing to keep)."""


@dataclass(frozen=True, slots=True)
class ChildFailed:
    """It could not."""

    reason: str
    """A slug, such as ``out-of-memory``."""
    message: str
    """One sentence for a person."""


ChildEnd = ChildDone | ChildStopped | ChildFailed
