"""Clips for an installed service: audio where it may read it, and what became of them."""

from __future__ import annotations

from booted import AUDIO
from witness import Database, drafted_by_machine, insert_clips, scalar, write_run

from daemon.local.speech import speak_corpus

RUN = "c0ffee00-0000-4000-8000-000000000001"
MOST = 3000


def prepare_audio() -> None:
    """One run with audio for many clips, before the settings are written: they name every run's directory."""
    write_run(AUDIO / RUN, speak_corpus("A", 20, seed=505), MOST)
    for directory in (AUDIO, AUDIO / RUN, AUDIO / RUN / "clips"):
        directory.chmod(0o755)


def new_clips(db: Database, count: int) -> list[str]:
    """So many more pending clips, in one statement. Returns their names."""
    there = int(scalar(db, "select count(*) from clips where run_id = %s", RUN))
    names = [f"clips/clip_{number:05}.wav" for number in range(there, there + count)]
    insert_clips(db, RUN, names)
    return names


def drafted(db: Database) -> int:
    """How many clips show a draft of the machine."""
    return len(drafted_by_machine(db))
