"""What happened in the demo, clip by clip and round by round."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from daemon.asr.metrics import word_error_rate

Row = dict[str, Any]


@dataclass
class Clip:
    """One row of the story, and what became of it."""

    id: str
    file_name: str
    written_by: str
    eligible: bool
    """Whether the daemon may draft it; until a person has corrected it."""
    row: Row
    """As its last human writer left it."""
    tape: str | None = None
    round: int | None = None
    reference: str = ""
    """What was really said; empty where nothing was."""
    after: Row = field(default_factory=dict)
    drafts: list[Row] = field(default_factory=list)
    """The daemon's log of its drafts, the oldest first."""

    @property
    def touched(self) -> bool:
        """Whether any column but `updated_at` differs from what the last person, or the extraction, left."""
        return {**self.row, "updated_at": 0} != {**self.after, "updated_at": 0}

    @property
    def words_changed(self) -> bool:
        """Whether anything that a person wrote or decided is not as they left it."""
        machine = {"updated_at", *({"draft_transcription"} if self.eligible else ())}
        return {k: v for k, v in self.row.items() if k not in machine} != {
            k: v for k, v in self.after.items() if k not in machine
        }

    def draft_of(self, version: int) -> Row | None:
        """Its last draft by a version."""
        return next((draft for draft in reversed(self.drafts) if draft["version_id"] == version), None)


@dataclass
class Round:
    """Corrections, a training, a verdict."""

    number: int
    corrections: int
    before: int
    """The version that was live."""
    version: int
    """The candidate."""
    stage: str
    reason: str
    held_out: Row
    """The judge's figures: clips, recordings, live_wer, candidate_wer, gain_low."""
    waiting_before: float
    """WER of the drafts of the clips that nobody ever corrects."""
    waiting_after: float
    pending: int
    """Clips that wait for a person when the round ends."""
    redrafted: int
    """How many of those the new version has drafted again."""
    seconds: float


@dataclass
class Story:
    """All of it."""

    clips: list[Clip] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Note how long a phase takes."""
        began = time.monotonic()
        yield
        self.seconds[phase] = round(time.monotonic() - began, 2)

    def waiting(self) -> list[Clip]:
        """The spoken clips that are pending to the end."""
        return [clip for clip in self.clips if clip.eligible and clip.reference and clip.round is None]

    def people(self) -> list[Clip]:
        """The rows that hold a person's words or decision."""
        return [clip for clip in self.clips if not clip.eligible]

    def words_changed(self) -> int:
        """In how many rows something is not as a person left it."""
        return sum(clip.words_changed for clip in self.clips)

    def well(self) -> bool:
        """Everything that had to happen, and nothing else: drafts for all, words untouched, each round a better model
        that drafted everything pending again."""
        waiting = [clip for clip in self.clips if clip.eligible]
        return (
            bool(self.rounds)
            and self.words_changed() == 0
            and all(clip.drafts and not clip.after["corrected_transcription"] for clip in waiting)
            and not any(clip.drafts for clip in self.clips if clip.reference == "")
            and all(each.stage == "live" and each.redrafted == each.pending for each in self.rounds)
            and all(each.waiting_after < each.waiting_before for each in self.rounds)
        )

    def record(self) -> Row:
        """The story as JSON."""
        return {
            "rounds": [asdict(each) for each in self.rounds],
            "clips": {
                clip.id: {
                    "file_name": clip.file_name,
                    "written_by": clip.written_by,
                    "tape": clip.tape,
                    "corrected_in_round": clip.round,
                    "pending": clip.eligible,
                    "reference": clip.reference,
                    "drafts": [
                        {key: draft[key] for key in ("version_id", "text", "confidence", "flags", "created_at")}
                        for draft in clip.drafts
                    ],
                    "words_changed": clip.words_changed,
                }
                for clip in self.clips
            },
            "words_changed": self.words_changed(),
            "seconds": self.seconds,
            "well": self.well(),
        }


def rate(clips: Sequence[Clip], version: int) -> float:
    """WER of a version's drafts, pooled over words."""
    drafts = [(clip.reference, clip.draft_of(version)) for clip in clips]
    drafted = [(reference, draft["text"]) for reference, draft in drafts if draft]
    return word_error_rate([reference for reference, _ in drafted], [text for _, text in drafted])
