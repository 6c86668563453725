"""The ledger of the suite: what people were told is saved, in a file outside the system under test.

Each line is one statement of a person: what it set on which clip, and whether the answer came. Without an answer
nobody knows whether it was carried out, so both are right afterwards.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

Row = Mapping[str, Any]
HUMAN = ("status", "corrected_transcription", "corrected_at", "corrected_by", "paragraphs", "duration_sec", "priority")
"""Columns that only people and scripts write."""
_TOLD = (*HUMAN, "draft_transcription")
"""The draft is a person's too where whoever inserted the row says so: a script to be read, a chapter, its pieces."""
_DEFAULTS: Row = {"status": "pending", "priority": 0}


class History:
    """Append-only. Statements on one clip come one after the other; clips may be written from many threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        path.touch()

    @contextmanager
    def statement(self, kind: str, change: Row, clips: Sequence[str]) -> Iterator[None]:
        """Note what is about to be asked, and afterwards that it was answered."""
        record = {"kind": kind, "clips": list(clips), "change": {k: v for k, v in change.items() if k in _TOLD}}
        self._write({**record, "answered": False})
        yield
        self._write({**record, "answered": True})

    def clips(self) -> dict[str, dict[str, list[Any]]]:
        """Clip -> column -> the values that it may have now; a deleted clip may have any."""
        state: dict[str, dict[str, list[Any]]] = {}
        for record in self._read():
            for clip in record["clips"]:
                if record["kind"] == "delete":
                    state.pop(clip, None)
                    continue
                if record["kind"] == "insert":
                    fresh = {**dict.fromkeys(HUMAN), **_DEFAULTS, **record["change"]}
                    state[clip] = {name: [value] for name, value in fresh.items()}
                known = state.setdefault(clip, {})
                for name, value in record["change"].items():
                    if record["answered"]:
                        known[name] = [value]
                    elif name in known:  # what stood there before it is not known otherwise
                        known[name].append(value)
        return state

    def count(self) -> int:
        """Statements that were answered."""
        return sum(record["answered"] for record in self._read())

    def broken(self, db: psycopg.Connection[Any], *, but: Sequence[str] = ()) -> list[str]:
        """Rows that differ from what people were told, in other columns than `but`, and rows that are gone."""
        expected = self.clips()
        rows = dict(
            db.execute("select id::text, to_jsonb(c) from clips c where id = any (%s)", [list(expected)]).fetchall()
        )
        found = [f"{clip}: gone" for clip in expected.keys() - rows.keys()]
        for clip, row in rows.items():
            for name, allowed in expected[clip].items():
                if name not in but and not any(_same(name, row[name], value) for value in allowed):
                    found.append(f"{clip}: {name} is {row[name]!r}, and was saved as {allowed}")
        return found

    def _write(self, record: Row) -> None:
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def _read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]


def _same(name: str, stored: Any, said: Any) -> bool:
    """Equal; for a moment also when it is written in another way."""
    if name == "corrected_at" and stored and said:
        return datetime.fromisoformat(stored) == datetime.fromisoformat(said)
    return bool(stored == said)
