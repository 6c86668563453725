"""Intentions, in the imperative. Each says which lane it occupies: a lane does one thing at a time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar


class Lane(Enum):
    """What can be busy."""

    DRAFT = "draft"
    """The thread that owns the model."""


@dataclass(frozen=True, slots=True)
class Draft:
    """Draft what is ready, for at most `batches` batches; then the same questions are asked again."""

    lane: ClassVar[Lane] = Lane.DRAFT
    version: int
    batches: int


Command = Draft
