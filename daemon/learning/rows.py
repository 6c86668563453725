"""The ledger's JSON as values, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from daemon.learning.ports import Sample, Side, TrainingRun, Version
from handlers.snapshot import ActiveRun, Candidate, Comparison, Failure, Guard, Training


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
