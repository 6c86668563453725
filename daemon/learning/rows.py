"""The ledger's JSON as values, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from daemon.learning.ports import Sample, Side, TrainingRun, Version
from handlers.snapshot import ActiveRun, Candidate, Comparison, EditRates, EditSums, Failure, Guard, Training


@dataclass(frozen=True, slots=True)
class Recording:
    """What clips were cut from, with at least one correction that may be trained on."""

    key: str
    """`source_file`, else the run's id."""
    clips: int
    seconds: float
    """Of these clips together."""
    side: Side | None
    """None: not decided yet."""


@dataclass(frozen=True, slots=True)
class LoggedDraft:
    """A draft that a clip once had."""

    id: int
    version: int
    text: str
    confidence: float | None
    """Mean log-probability of the generated tokens; None where nothing was generated."""
    flags: tuple[str, ...]
    created_at: str


@dataclass(frozen=True, slots=True)
class Edited:
    """What people changed in drafts of one version, counted over their corrections. The shares are of 1."""

    clips: int = 0
    unchanged: int = 0
    words: int = 0
    word_edits: int = 0
    characters: int = 0
    character_edits: int = 0

    @property
    def of_words(self) -> float | None:
        """The share of words that was changed; None where there was no word."""
        return self.word_edits / self.words if self.words else None

    @property
    def of_characters(self) -> float | None:
        """The share of characters that was changed; None where there was none."""
        return self.character_edits / self.characters if self.characters else None

    @property
    def left_alone(self) -> float | None:
        """The share of drafts that were accepted as they were; None where none was corrected."""
        return self.unchanged / self.clips if self.clips else None


def edited(rates: Iterable[Mapping[str, Any]], version: int) -> Edited:
    """Of one version, summed over the rows of `ambara_edit_rates` that are its own."""
    mine = [row for row in rates if int(row["version"]) == version]
    names = ("clips", "unchanged", "words", "word_edits", "characters", "character_edits")
    return Edited(**{name: sum(int(row[name]) for row in mine) for name in names})


def edits_compared(row: Mapping[str, Any] | None) -> tuple[EditRates, str] | None:
    """The live version beside the one before, and that one's kind, of `ambara_edits_compared`."""
    if row is None:
        return None
    now, then = (_sums(row["edits"].get(str(row[which]))) for which in ("version", "before"))
    rates = EditRates(int(row["version"]), int(row["before"]), bool(row["chosen"]), here=False, now=now, then=then)
    return rates, str(row["before_kind"])


def _sums(row: Mapping[str, Any] | None) -> EditSums | None:
    return EditSums(**row) if row else None


def training(row: Mapping[str, Any]) -> Training:
    """What there is to learn from."""
    active, failure = row["active"], row["failure"]
    return Training(
        new_clips=int(row["new_clips"]),
        new_minutes=float(row["new_minutes"]),
        trained_clips=int(row["trained_clips"]),
        trained_minutes=float(row["trained_minutes"]),
        recordings=int(row["recordings"]),
        held_out=int(row["held_out"]),
        asked=bool(row["asked"]),
        active=ActiveRun(active["run"], active["worker"], bool(active["abandoned"])) if active else None,
        failure=Failure(**failure) if failure else None,
    )


def candidate(row: Mapping[str, Any] | None) -> Candidate | None:
    """The newest candidate. Whether its folder is here only the host knows."""
    if row is None:
        return None
    return Candidate(int(row["version"]), here=False, comparison=comparison(row["comparison"]))


def comparison(row: Mapping[str, Any] | None) -> Comparison | None:
    """A comparison that was stored as `comparison_row` says."""
    if row is None:
        return None
    return Comparison(**{**row, "guards": tuple(Guard(**guard) for guard in row["guards"])})


def comparison_row(given: Comparison) -> dict[str, Any]:
    """A comparison as JSON."""
    return asdict(given)


def recording(row: Mapping[str, Any]) -> Recording:
    """A recording with its side, if it has one."""
    return Recording(row["key"], int(row["clips"]), float(row["seconds"]), Side(row["side"]) if row["side"] else None)


def training_run(row: Mapping[str, Any] | None) -> TrainingRun | None:
    """A run that this worker holds now."""
    return TrainingRun(**row) if row else None


def sample(row: Mapping[str, Any]) -> Sample:
    """A corrected clip."""
    return Sample(
        clip_id=row["clip_id"],
        run_id=row["run_id"],
        file_name=row["file_name"],
        recording=row["recording"],
        side=Side(row["side"]),
        kind=row["kind"],
        text=row["text"],
        text_md5=row["text_md5"],
        duration_s=row["duration_s"],
        label=row["label"],
        seen=bool(row.get("seen")),
    )


def version(row: Mapping[str, Any]) -> Version:
    """A model version."""
    return Version(**row)


def logged_draft(row: Mapping[str, Any]) -> LoggedDraft:
    """A line of the log of drafts."""
    return LoggedDraft(**{**row, "flags": tuple(row["flags"])})
