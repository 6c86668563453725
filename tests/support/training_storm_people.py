"""People who correct, edit, change their mind, record, and delete, while others kill what learns from it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from crowd import RememberingEditor
from training_storm_book import NEW_TAKE, Book, Words

NOT_YET = {"status": "pending", "corrected_transcription": None, "corrected_at": None, "corrected_by": None}
HELD_OUT = "psalm"
TAPES = ("tape-0", "tape-1", "tape-2")


class StormPeople:
    """Everybody who writes corrections, and the book that says what they were told."""

    def __init__(self, editor: RememberingEditor, db: psycopg.Connection[Any], book: Book, dice: random.Random) -> None:
        self._editor = editor
        self._db = db
        self._book = book
        self._dice = dice
        self._busy: set[str] = set()
        self._firm = 0
        """So many of them for good."""
        self._deleting = False
        self.acts: dict[str, int] = {}

    async def settle(self) -> None:
        """Three tapes to work on, a psalm that is held out, and some words that stay: a run never loses all of its."""
        for recording in (*TAPES, HELD_OUT):
            side = "held-out" if recording == HELD_OUT else "train"
            self._db.execute("insert into training_recordings (recording, side) values (%s, %s)", [recording, side])
            await self._tape(recording, 3 if recording == HELD_OUT else 60)
        tape, psalm = (
            [key for key, clip in self._book.clips.items() if clip.recording == name] for name in (TAPES[0], HELD_OUT)
        )
        for key in (*psalm, *tape[: self._book.bar - 1]):
            await self._change({key: Words(self._text())}, "keep", self._editor.save)
            self._busy.add(key)
            self._firm += 1

    async def work(self, done: asyncio.Event, may: Callable[[], bool]) -> None:
        """One person, until `done`, whenever they `may`."""
        acts = (self._correct, self._correct, self._correct, self._edit, self._undo, self._record, self._delete)
        while not done.is_set():
            await asyncio.sleep(self._dice.uniform(0.02, 0.3))
            if not self._deleting and may():
                await self._dice.choice(acts)()

    async def _correct(self) -> None:
        if key := self._pick(lambda clip: clip.now is None and not clip.spoken and clip.recording != HELD_OUT):
            await self._change({key: Words(self._text())}, "correct", self._editor.save)

    async def _edit(self) -> None:
        if key := self._pick(lambda clip: clip.now is not None and not clip.spoken):
            await self._change({key: Words(self._text())}, "edit", self._editor.save)

    async def _undo(self) -> None:
        if key := self._pick(lambda clip: clip.now is not None and not clip.spoken and clip.recording != HELD_OUT):
            await self._change({key: None}, "undo", lambda row, _: self._editor.undo(row, NOT_YET))

    async def _record(self) -> None:
        """A script read aloud, for the first time or again: no `corrected_at` in either case."""
        if not any(clip.spoken and clip.now is None for clip in self._book.clips.values()):
            for row in await self._editor.reading_session([self._text() for _ in range(4)]):
                self._book.add(row, row["run_id"], spoken=True)
        if key := self._pick(lambda clip: clip.spoken):
            row = self._book.clips[key].row
            text = row["draft_transcription"]

            async def read_aloud(row: dict[str, Any], _: str) -> None:
                await self._editor.record(row, self._dice.randbytes(32))

            if await self._change({key: Words(text, NEW_TAKE)}, "record", read_aloud):
                query = "select tag from ambara_audio_tags('clips') where name = %s"
                tag = self._db.execute(query, [f"{row['run_id']}/{row['file_name']}"]).fetchone()
                assert tag
                self._book.taken(key, tag[0])
            self._busy.discard(key)

    async def _delete(self) -> None:
        """A reading run, with nobody else at work: what is counted and what is locked are then the same."""
        runs = {clip.row["run_id"] for clip in self._book.clips.values() if clip.spoken}
        if self._deleting or len(runs) < 3:
            return
        self._deleting = True
        try:
            while len(self._busy) > self._firm:  # noqa: ASYNC110 - they do not ring
                await asyncio.sleep(0.01)
            run = self._dice.choice(sorted(runs))
            gone: dict[str, Words | None] = {
                key: None for key, clip in self._book.clips.items() if clip.row["run_id"] == run
            }
            self._book.refresh(self._db)
            low, high = self._book.count()
            if (low < self._book.bar <= high) or not self._book.permits(gone):
                return
            with self._book.under_way(gone), self._editor.history.statement("delete", {}, list(gone)):
                await self._editor.delete_run(run)
            self._tally("delete run")
            for key in gone:
                del self._book.clips[key]
        finally:
            self._deleting = False

    async def _tape(self, recording: str, count: int) -> None:
        names = [f"clips/{recording}-{number}.wav" for number in range(count)]
        rows = [{"file_name": name, "source_file": recording, "duration_sec": 1.0} for name in names]
        run = await self._editor.sync_extraction(rows)
        for row in await self._editor.clips(run):
            self._book.add(row, recording)

    def _pick(self, suits: Any) -> str | None:
        keys = [key for key, clip in self._book.clips.items() if key not in self._busy and suits(clip)]
        return self._dice.choice(keys) if keys else None

    async def _change(self, changes: Mapping[str, Words | None], kind: str, act: Any) -> bool:
        """Do it if it is permitted. Returns whether it was done."""
        ((key, words),) = changes.items()
        self._book.refresh(self._db)
        if self._deleting or not self._book.permits(changes):
            return False
        self._busy.add(key)
        with self._book.under_way(changes):
            await act(self._book.clips[key].row, words.text if words else "")
        if not (words and words.tag is NEW_TAKE):
            self._busy.discard(key)
        self._tally(kind)
        return True

    def _tally(self, kind: str) -> None:
        self.acts[kind] = self.acts.get(kind, 0) + 1

    def _text(self) -> str:
        return " ".join(f"{self._dice.getrandbits(40):010x}" for _ in range(4))
