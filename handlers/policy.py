"""Every threshold, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class DraftingPolicy:
    """How long drafting goes on before the questions are asked again."""

    batches_per_turn: int = 64
    """The device stands still for a moment between two turns. A turn ends early when another version goes live."""


@dataclass(frozen=True, slots=True)
class TrainingPolicy:
    """When to train."""

    enabled: bool = True
    min_new_clips: int = 50
    min_new_minutes: float = 10.0
    growth: float = 0.25
    """The bar is at least this share of what was trained on before. Runs then grow geometrically, and the cost of all
    of them together stays linear in the number of corrections."""
    cooldown_minutes: float = 15.0
    """After a failed run; doubles with every further one."""
    cooldown_most_minutes: float = 24 * 60.0
    hours: tuple[int, int] | None = None
    """Begin only from the first hour of the day up to, and without, the second; may cross midnight."""


@dataclass(frozen=True, slots=True)
class PromotionPolicy:
    """When a candidate is really better."""

    min_gain: float = 0.01
    """Absolute word error rate, of the point estimate."""
    min_clips: int = 20
    min_recordings: int = 2
    roll_back: bool = False
    """Go back by itself, once, from a version whose drafts need more edits than those of the one before."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a decision may weigh besides the snapshot."""

    drafting: DraftingPolicy = field(default_factory=DraftingPolicy)
    training: TrainingPolicy = field(default_factory=TrainingPolicy)
    promotion: PromotionPolicy = field(default_factory=PromotionPolicy)
