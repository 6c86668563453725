"""People at the editor in random histories: what they do, and what a model of a few lines says of each clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from interleave_drafters import Held

Sql = psycopg.Connection[Any]
NUMBER = st.integers(0, 7)


@dataclass(frozen=True, slots=True)
class Claimed:
    worker: str
    fence: int
    changed: int
    number: int


@dataclass
class Clip:
    run: str
    name: str
    chapter: bool = False
    status: str = "pending"
    words: str | None = None
    changed: int = 0
    """Rises with each statement of a person."""
    draft: str = ""
    settled: int = 0
    """The live number under which it was drafted; 0 never, or somebody else wrote the draft since."""
    unfit: tuple[int, int] | None = None
    """Failed for good under this live number, with the row as it was."""
    claim: Claimed | None = None
    lease: Literal["none", "runs", "is over"] = "none"

    def owned(self, worker: str, held: Held) -> Claimed | None:
        """The claim, where it is the one that this worker means."""
        claim = self.claim
        return claim if claim and (claim.worker, claim.fence) == (worker, held.fence) else None

    def row(self) -> tuple[object, ...]:
        """As it stands in the database."""
        return (self.status, self.words, self.chapter, self.run, self.name, self.draft)


class People(RuleBasedStateMachine):
    """They know nothing of machines."""

    db: Sql
    editor: Sql

    def begin(self) -> None:
        """Two runs, and nothing in them."""
        self.db.execute("delete from runs")
        self.clips: dict[str, Clip] = {}
        self.readings: set[str] = set()
        self.made = 0
        self.runs = [self.add_run("extraction"), self.add_run("extraction")]

    def draftable(self, clip: Clip) -> bool:
        piece = clip.name.startswith("chunks/") and any(c.chapter and c.run == clip.run for c in self.clips.values())
        person = clip.status != "pending" or clip.words is not None
        return not (person or clip.chapter or piece or clip.run in self.readings)

    def pick(self, number: int) -> str:
        # In the order of their coming: ids are random, and a history has to be the same when it is played again.
        return list(self.clips)[number % len(self.clips)]

    def add_run(self, kind: str) -> str:
        row = self.editor.execute(
            "insert into runs (label, type) values ('m', %s) returning id::text", [kind]
        ).fetchone()
        assert row
        return str(row[0])

    def add(self, run: str, folder: str, draft: str, *, chapter: bool = False) -> str:
        self.made += 1
        name = f"{folder}/{self.made}.wav"
        row = self.editor.execute(
            "insert into clips (run_id, file_name, draft_transcription, paragraphs) "
            "values (%s, %s, %s, case when %s then '[]'::jsonb end) returning id::text",
            [run, name, draft, chapter],
        ).fetchone()
        assert row
        self.clips[row[0]] = Clip(run, name, chapter=chapter, draft=draft)
        return str(row[0])

    def write(self, clip_id: str, **change: Any) -> None:
        clip = self.clips[clip_id]
        for name, value in change.items():
            setattr(clip, name, value)
        clip.changed += 1
        self.editor.execute(
            "update clips set status = %s, corrected_transcription = %s where id = %s",
            [clip.status, clip.words, clip_id],
        )

    @rule(run=st.integers(0, 1))
    def arrive(self, run: int) -> None:
        self.add(self.runs[run], "clips", "stock draft")

    @rule()
    def read_aloud(self) -> None:
        run = self.add_run("reading")
        self.readings.add(run)
        # Where the run's type alone says that it is a person's text.
        self.add(run, "texts", "psalm")
        self.add(run, "chunks", "psalm")

    @precondition(lambda self: self.clips)
    @rule(number=NUMBER, words=st.sampled_from(["", "one", "two"]))
    def correct(self, number: int, words: str) -> None:
        self.write(self.pick(number), status="corrected", words=words)

    @precondition(lambda self: self.clips)
    @rule(number=NUMBER, words=st.sampled_from(["", "on"]))
    def autosave(self, number: int, words: str) -> None:
        self.write(self.pick(number), words=words)

    @precondition(lambda self: self.clips)
    @rule(number=NUMBER)
    def discard(self, number: int) -> None:
        self.write(self.pick(number), status="discarded")

    @precondition(lambda self: self.clips)
    @rule(number=NUMBER)
    def undo(self, number: int) -> None:
        """Of a discard, of a correction, of a split: pending again."""
        self.write(self.pick(number), status="pending", words=None)

    @precondition(lambda self: self.clips)
    @rule(number=NUMBER)
    def sync_again(self, number: int) -> None:
        """The extraction's own draft comes once more, over whatever was there."""
        clip = self.clips[clip_id := self.pick(number)]
        if clip.name.startswith("clips/"):
            text = f"stock draft {self.made}"
            self.db.execute("update clips set draft_transcription = %s where id = %s", [text, clip_id])
            clip.changed += 1
            if clip.draft != text:
                clip.draft, clip.settled = text, 0

    @rule(run=st.integers(0, 1))
    def split(self, run: int) -> None:
        chapter = self.add(self.runs[run], "chapters", "In the beginning", chapter=True)
        self.add(self.runs[run], "chunks", "In the")
        self.write(chapter, status="discarded", words='{"_splitOrigin": true}')

    @rule(run=st.integers(0, 1))
    def delete_run(self, run: int) -> None:
        self.db.execute("delete from runs where id = %s", [self.runs[run]])
        self.clips = {i: clip for i, clip in self.clips.items() if clip.run != self.runs[run]}
        self.runs[run] = self.add_run("extraction")
