"""Every threshold, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class DraftingPolicy:
    """How long drafting goes on before the questions are asked again."""

    batches_per_turn: int = 8


@dataclass(frozen=True, slots=True)
class Policy:
    """What a decision may weigh besides the snapshot."""

    drafting: DraftingPolicy = field(default_factory=DraftingPolicy)
