"""What a person is told is saved, and the connections over which they say it.

The statements set the columns that `scripted_editor` sets; each is a transaction of its own, unless it stands in one.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

Row = dict[str, Any]
Sql = psycopg.Connection[Any]

KEPT = (
    "run_id::text, file_name, source_file, duration_sec, priority, status, corrected_transcription, corrected_at, "
    "corrected_by, paragraphs"
)
"""What only people and scripts write. Where the draft is a person's text, that too."""
UNTOUCHED: Row = {
    "status": "pending", "corrected_transcription": None, "corrected_at": None, "corrected_by": None
}  # fmt: skip
_NEW: Row = {**UNTOUCHED, "source_file": None, "duration_sec": None, "priority": 0.0, "paragraphs": None}


def connected(db_url: str, role: str) -> Sql:
    """A connection under a role of the API; every statement commits by itself."""
    connection = psycopg.connect(db_url, autocommit=True, prepare_threshold=3)
    connection.execute(f"set role {role}".encode())
    return connection


class Desk:
    """Somebody's rows: their ledger, and how they are written."""

    def __init__(self, db_url: str, dice: random.Random) -> None:
        self.dice = dice
        self.ledger: dict[str, Row] = {}
        self.statements = 0
        self.longest_s = 0.0
        """The longest that one of them took."""
        self._worn: list[str] = []
        """Extracted clips that were changed, and may have to be made pending before a machine looks at them again."""
        self._runs: dict[str, list[str]] = {}
        self._editor = connected(db_url, "authenticated")
        self._scripts = connected(db_url, "service_role")

    def close(self) -> None:
        """Leave."""
        self._editor.close()
        self._scripts.close()

    def owned(self) -> list[str]:
        """Clips that were extracted."""
        return [clip for clips in self._runs.values() for clip in clips]

    def clips_of(self, run: str) -> list[str]:
        """What was extracted into a run, in the editor's order."""
        return self._runs[run]

    def broken(self, db: Sql) -> list[str]:
        """Where the rows differ from what this person was told."""
        found = []
        query = f"select id::text, draft_transcription as draft, {KEPT} from clips where run_id::text = any (%s)"
        with db.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            runs = list({row["run_id"] for row in self.ledger.values()})
            rows = {row.pop("id"): row for row in cursor.execute(query.encode(), [runs]).fetchall()}
        found += [f"{clip} is gone" for clip in self.ledger.keys() - rows.keys()]
        found += [f"{clip} came from nowhere" for clip in rows.keys() - self.ledger.keys()]
        for clip in rows.keys() & self.ledger.keys():
            for name, value in self.ledger[clip].items():
                if rows[clip][name] != value:
                    found.append(f"{clip}: {name} is {rows[clip][name]!r}, saved was {value!r}")
        return found

    def _update(self, clip: str, change: Row) -> None:
        self._update_many([clip], change)

    def _update_many(self, clips: Sequence[str], change: Row) -> None:
        columns = ", ".join(f"{name} = %s" for name in change)
        reached = self._say(
            self._editor, f"update clips set {columns} where id = any (%s::uuid[])", [*change.values(), list(clips)]
        )
        assert reached == len(clips), f"{reached} of {len(clips)} rows of {clips}"
        for clip in clips:
            self.ledger[clip].update(change)
            if "paragraphs" not in change and self.ledger[clip]["file_name"].startswith("clips/"):
                self._worn.append(clip)

    def _insert_run(self, connection: Sql, kind: str) -> str:
        run = self._id()
        self._say(connection, "insert into runs (id, label, type) values (%s, 'speed', %s)", [run, kind])
        return run

    def insert(self, run: str, names: Sequence[str], text: str, **more: Any) -> list[str]:
        """Rows that a person adds, whose draft is a person's text."""
        clips = [self._id() for _ in names]
        values = [[clip, run, name, text, more.get("priority", 0.0), _json(more.get("paragraphs"))]
                  for clip, name in zip(clips, names, strict=True)]  # fmt: skip
        self._say(
            self._editor,
            "insert into clips (id, run_id, file_name, draft_transcription, priority, paragraphs) values "
            + ", ".join(["(%s, %s, %s, %s, %s, %s)"] * len(values)),
            [value for row in values for value in row],
        )
        for clip, name in zip(clips, names, strict=True):
            self.ledger[clip] = {**_NEW, "run_id": run, "file_name": name, "draft": text, **more}
        return clips

    def _upsert(self, run: str, clips: dict[str, str]) -> None:
        """As PostgREST does it with `on_conflict=run_id,file_name`."""
        seconds = round(self.dice.random() * 30, 3)
        self._say(
            self._scripts,
            "insert into clips (id, run_id, file_name, draft_transcription, source_file, duration_sec) "
            "select i, %s, n, 'stock draft', 'tape.mp3', %s from unnest(%s::uuid[], %s::text[]) as u (i, n) "
            "on conflict (run_id, file_name) do update set draft_transcription = excluded.draft_transcription, "
            "source_file = excluded.source_file, duration_sec = excluded.duration_sec",
            [run, seconds, list(clips), list(clips.values())],
        )
        self._runs[run] = list(clips)
        for clip, name in clips.items():
            known = self.ledger.setdefault(clip, {**_NEW, "run_id": run, "file_name": name})
            known.update(source_file="tape.mp3", duration_sec=seconds)

    def _say(self, connection: Sql, statement: str, values: Sequence[Any]) -> int:
        began = time.monotonic()
        done = connection.execute(statement.encode(), values).rowcount
        self.longest_s = max(self.longest_s, time.monotonic() - began)
        self.statements += 1
        return done

    def _id(self) -> str:
        return str(uuid.UUID(int=self.dice.getrandbits(128)))


def _json(value: Any) -> Jsonb | None:
    return None if value is None else Jsonb(value)
