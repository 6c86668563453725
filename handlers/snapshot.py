"""The only input of a decision."""

from __future__ import annotations

from dataclasses import dataclass

from handlers.commands import Lane


@dataclass(frozen=True, slots=True)
class ActiveRun:
    """The training run that is under way, on this host or another. There is at most one."""

    run: int
    worker: str | None
    abandoned: bool
    """Its lease has ended: whoever comes first goes on with it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The last attempt to train, where it failed."""

    run: int
    message: str
    in_a_row: int
    """Failed runs since the last that finished."""
    minutes_ago: float


@dataclass(frozen=True, slots=True)
class Training:
    """What there is to learn from, counted by the database."""

    new_clips: int
    """Corrections of recordings that are not held out, in no attempted run with these words and this audio."""
    new_minutes: float
    trained_clips: int
    """Clips of the training side in the last attempted run."""
    trained_minutes: float
    recordings: int
    """Recordings with at least one correction that may be trained on."""
    held_out: int
    """Those of them that are held out. A recording never changes sides."""
    asked: bool = False
    """A person wants training now."""
    active: ActiveRun | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Guard:
    """A figure that must not become worse by more than `tolerance`. Lower is better."""

    name: str
    """In words, as ``word error rate of the worst recording``."""
    live: float
    candidate: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against the live version on the same held-out clips. Rates are fractions, pooled over words."""

    against: int
    """The version that was live when it was made."""
    clips: int
    recordings: int
    words: int
    live_wer: float
    candidate_wer: float
    gain_low: float
    """Lower end of the gain (live minus candidate, absolute): true with the stated confidence, one-sided."""
    gain_high: float
    """Upper end, at the same confidence."""
    confidence: float
    guards: tuple[Guard, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """The newest trained version that is neither live nor turned down."""

    version: int
    here: bool
    """Its folder is on this host."""
    comparison: Comparison | None


@dataclass(frozen=True, slots=True)
class EditSums:
    """What people changed in a version's drafts, summed over recordings: the products tell how much these differ."""

    clips: int
    recordings: int
    words: int
    """Of the corrections."""
    edits: int
    """Words inserted, left out or replaced."""
    words_words: float
    """Sum over recordings of words times words; the next two likewise."""
    words_edits: float
    edits_edits: float


@dataclass(frozen=True, slots=True)
class EditRates:
    """The live version's drafts beside those of the version that was live before it, as people corrected them."""

    version: int
    before: int
    chosen: bool
    """A person or a roll-back made this one live, or it is no trained one."""
    here: bool
    """The version before can be loaded on this host."""
    now: EditSums | None
    """None: nobody has corrected a draft of it yet."""
    then: EditSums | None


@dataclass(frozen=True, slots=True)
class Learning:
    """What the learning loop's decisions look at."""

    training: Training
    candidate: Candidate | None
    hour: int
    """Of the day, 0 to 23, where this daemon runs."""
    edits: EditRates | None = None
    """None: no version was live before the one that is."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The truth as one read found it, and what this process is doing."""

    live: int | None
    """The model version that the database says is live."""
    loaded: int | None
    """The version in this process's memory."""
    ready: int
    """Clips that want a draft now. Counting stops at 1,000."""
    busy: frozenset[Lane] = frozenset()
    learning: Learning | None = None
    """None where no event asked for it: counting corrections takes longer than the rest."""
