"""Corrected clips by the hundred, written as the superuser, for tests of what is counted."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg

Database = psycopg.Connection[Any]


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
