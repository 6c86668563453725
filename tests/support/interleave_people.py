"""People at inhuman speed: the editor's statements under the editor's role, straight at PostgreSQL.

Each person has runs of their own, so that what they were told is saved is what has to be there afterwards.
"""

from __future__ import annotations

import json
import random
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

from interleave_ledger import UNTOUCHED, Desk, Sql


class Person(Desk):
    """Somebody at the editor, with the scripts that fill their runs."""

    def __init__(self, db_url: str, dice: random.Random, *, runs: int, clips: int) -> None:
        super().__init__(db_url, dice)
        self.inbox: deque[str] = deque()
        """Clips of theirs that a machine has claimed just now: where it hurts most."""
        self._size = clips
        self._chapters: list[str] = []
        for _ in range(runs):
            self.sync()

    def act(self) -> None:
        """Do something to the clip that was claimed last, or to any; mend what became too worn to be drafted."""
        kinds = (
            (self.autosave, 20), (self.save, 10), (self.discard, 8), (self.discard_and_undo, 14), (self.record, 4),
            (self.bulk_discard, 8), (self.hold_open, 8), (self.sync_again, 3), (self.chapter, 2), (self.reading, 1),
            (self.delete_run, 1),
        )  # fmt: skip
        kind = self.dice.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]
        kind(self.target())
        if len(self._worn) > len(self.ledger) // 6:
            self.undo_many()

    def target(self) -> str:
        """A clip that is claimed now, as far as anybody knows."""
        while self.inbox:
            clip = self.inbox.popleft()
            if clip in self.ledger:
                return clip
        return self.dice.choice(self.owned())

    def autosave(self, clip: str) -> None:
        """What is typed so far."""
        self._update(clip, {"corrected_transcription": f"typing {self.dice.random()}"})

    def save(self, clip: str) -> None:
        """The correction, then its history."""
        text = f"saved {self.dice.random()}"
        self._update(
            clip, {"corrected_transcription": text, "status": "corrected", "corrected_at": _now(), "corrected_by": "r"}
        )
        self._say(
            self._editor,
            "insert into clip_edits (clip_id, editor_id, field, new_value) "
            "values (%s, 'r', 'corrected_transcription', %s)",
            [clip, text],
        )

    def discard(self, clip: str) -> None:
        """Discard one."""
        self._update(clip, {"status": "discarded", "corrected_at": _now(), "corrected_by": "r"})

    def discard_and_undo(self, clip: str) -> None:
        """Discard, and write the four values back that were there."""
        before = {name: self.ledger[clip][name] for name in UNTOUCHED}
        self.discard(clip)
        self._update(clip, before)

    def record(self, clip: str) -> None:
        """The text was read aloud."""
        self._update(clip, {"corrected_transcription": "read aloud", "status": "corrected", "duration_sec": 2.0})

    def bulk_discard(self, clip: str) -> None:
        """Many in one statement."""
        clips = list({clip, *(self.target() for _ in range(7))})
        self._update_many(clips, {"status": "discarded", "corrected_at": _now(), "corrected_by": "r"})

    def undo_many(self) -> None:
        """Make what was worked on pending again."""
        worn, self._worn = [clip for clip in self._worn if clip in self.ledger], []
        self._update_many(list(set(worn)), UNTOUCHED)
        self._worn = []

    def hold_open(self, clip: str) -> None:
        """Hold the row while machines submit, then keep the change or take it back."""
        with self.holding(self._editor, keep=self.dice.random() < 0.7):
            self.dice.choice([self.autosave, self.discard, self.discard_and_undo, self.bulk_discard])(clip)
            time.sleep(self.dice.random() * 0.01)

    @contextmanager
    def holding(self, *connections: Sql, keep: bool) -> Iterator[None]:
        """Everything in the block is one transaction, which commits or rolls back. Of both, unless one is given."""
        before = ({clip: dict(row) for clip, row in self.ledger.items()}, dict(self._runs), [*self._chapters])
        worn = [*self._worn]
        with ExitStack() as stack:
            for connection in connections or (self._editor, self._scripts):
                stack.enter_context(connection.transaction(force_rollback=not keep))
            yield
        if not keep:
            (self.ledger, self._runs, self._chapters), self._worn = before, worn

    # Rows that come and go.

    def sync(self, folder: str = "clips") -> str:
        """Extract a run. Returns its id."""
        run = self._insert_run(self._scripts, "extraction")
        self._runs[run] = []
        names = [f"{folder}/{number:04}.wav" for number in range(self._size)]
        self._upsert(run, {self._id(): name for name in names})
        return run

    def sync_again(self, clip: str) -> None:
        """The extraction sends the rows of a run again, over those that are there; what people did stays."""
        run = self.ledger[clip]["run_id"]
        if run in self._runs:
            self._upsert(run, {known: self.ledger[known]["file_name"] for known in self._runs[run]})

    def delete_run(self, clip: str) -> None:
        """A run goes, with all that is in it, and another is extracted."""
        run = self.ledger[clip]["run_id"]
        if run in self._runs:
            self._say(self._scripts, "delete from runs where id = %s", [run])
            del self._runs[run]
            self.ledger = {known: row for known, row in self.ledger.items() if row["run_id"] != run}
            self._chapters = [known for known in self._chapters if known in self.ledger]
            self.sync()

    def chapter(self, clip: str) -> None:
        """Split a chapter of the run: the pieces first, then the mark. Or merge one back."""
        if self._chapters and self.dice.random() < 0.4:
            self.merge_back(self._chapters.pop())
            return
        run = self.ledger[clip]["run_id"]
        number = self.dice.getrandbits(60)
        paragraphs = [{"heading": None, "text": "In the beginning"}]
        [chapter] = self.insert(run, [f"chapters/{number}.wav"], "In the beginning", paragraphs=paragraphs)
        self.insert(run, [f"chunks/{number}-{piece}.wav" for piece in range(2)], "In the", priority=2.0)
        self.mark_split(chapter)
        self._chapters.append(chapter)

    def mark_split(self, clip: str) -> None:
        """The second half of a split."""
        record = {"_splitOrigin": True, "childFileNames": []}
        self._update(clip, {"status": "discarded", "corrected_transcription": json.dumps(record)})

    def merge_back(self, clip: str) -> None:
        """Pending again; the pieces stay, because nobody may delete them."""
        self._update(clip, UNTOUCHED)

    def mark_and_merge(self, clip: str) -> None:
        """Split, and think better of it."""
        self.mark_split(clip)
        self.merge_back(clip)

    def reading(self, _clip: str) -> str:
        """A run to be read aloud, whose id this returns; its first chunk is recorded."""
        run = self._insert_run(self._editor, "reading")
        clips = self.insert(run, ["chunks/0000.wav", "texts/0001.wav"], "psalm")
        self._update(clips[0], {"corrected_transcription": "psalm", "status": "corrected", "duration_sec": 2.0})
        return run


def _now() -> datetime:
    return datetime.now(UTC)
