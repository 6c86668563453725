"""Corrected clips, written as the superuser: by the hundred for tests of what is counted, with audio for trainings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from daemon.local.speech import Utterance, speak_corpus, wav_bytes

Database = psycopg.Connection[Any]
TAPES, CLIPS, WAITING = 6, 12, 12


def add_run(db: Database, *, kind: str = "extraction", label: str = "sermon") -> str:
    """A run without clips. Returns its id."""
    return str(insert(db, "insert into runs (label, type) values (%s, %s) returning id", [label, kind])[0])


def add_corrected(
    db: Database, run: str, count: int = 1, *, recording: str | None = "tape", words: str = "words", seconds: float = 6
) -> list[str]:
    """Clips that a person has corrected. Returns their ids."""
    return [
        str(each)
        for each in insert(
            db,
            "insert into clips (run_id, file_name, source_file, duration_sec, status, corrected_transcription) "
            "select %s, 'clips/' || gen_random_uuid() || '.wav', %s, %s, 'corrected', %s from generate_series(1, %s) "
            "returning id",
            [run, recording, seconds, words, count],
        )
    ]


def insert(db: Database, statement: str, values: list[Any]) -> list[Any]:
    """The first column of what a statement returns."""
    return [row[0] for row in db.execute(statement.encode(), values).fetchall()]


def decide(db: Database, **sides: str) -> None:
    """Sides of recordings; ``held_out`` is written as in the database."""
    for recording, side in sides.items():
        db.execute(
            "insert into training_recordings (recording, side) values (%s, %s)", [recording, side.replace("_", "-")]
        )


def fingerprint() -> str:
    """Of a model that nobody has seen before."""
    return uuid4().hex * 2


def spoken_clinic() -> Sequence[Utterance]:
    """What is said on the tapes of `corrected_tapes`: no two the same, in a voice and with words that the carried model
    does not know."""
    count = TAPES * CLIPS + WAITING
    return list({each.text: each for each in speak_corpus("B", 2 * count, seed=77)}.values())[:count]


def corrected_tapes(db: Database, folder: Path, spoken: Sequence[Utterance]) -> dict[str, Path]:
    """Six corrected tapes of the clinic, enough to train on, and a dozen clips that wait. Returns run -> its audio."""
    run_dirs = {}
    left = iter(spoken)
    for tape in range(TAPES + 1):
        run = str(uuid4())
        run_dirs[run] = folder / run
        (run_dirs[run] / "clips").mkdir(parents=True)
        db.execute("insert into runs (id, label) values (%s, %s)", [run, f"tape {tape}"])
        for number in range(CLIPS if tape < TAPES else WAITING):
            clip = next(left)
            name = f"clips/clip_{number:05}.wav"
            (run_dirs[run] / name).write_bytes(wav_bytes(clip.audio))
            text, status = (clip.text, "corrected") if tape < TAPES else (None, "pending")
            db.execute(
                "insert into clips (run_id, file_name, source_file, duration_sec, draft_transcription, "
                "corrected_transcription, status) values (%s, %s, %s, %s, 'stock draft', %s, %s)",
                [run, name, f"clinic {tape}.mp3", clip.seconds, text, status],
            )
    return run_dirs
