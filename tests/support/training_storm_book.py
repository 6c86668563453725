"""What people were told is corrected, and so how many corrections are new: counted outside the system.

The rule is the document's: a correction counts when no run has attempted its words with its audio, and its recording
is not held out. While a statement is under way nobody knows which of its two states counts, so there are two counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any

import psycopg
from training_storm_audit import sampled

NEW_TAKE = "a take whose tag is not known yet"


@dataclass(frozen=True, slots=True)
class Words:
    """A correction: its text, and the tag of its audio where the bucket has that."""

    text: str
    tag: str | None = None

    @property
    def md5(self) -> str:
        return md5(self.text.encode(), usedforsecurity=False).hexdigest()


@dataclass
class Clip:
    """A clip as people know it. `now` None: not corrected, or gone."""

    row: dict[str, Any]
    recording: str
    spoken: bool = False
    now: Words | None = None
    coming: list[Words | None] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that began, with what was new in it."""

    run: int
    fresh: int
    strange: tuple[str, ...]
    """What it counted and nobody ever wrote."""


class Book:
    """All clips, what was attempted, and the crossings of `bar`."""

    def __init__(self, bar: int, slack: int) -> None:
        self.bar = bar
        self._slack = slack
        self.clips: dict[str, Clip] = {}
        self.begun: list[Begun] = []
        self.reached = 0
        """How often the bar was crossed."""
        self.waiting = False
        """It is crossed, and no run has begun for that yet."""
        self._attempted: set[tuple[str, str, str | None]] = set()
        self._words: set[tuple[str, str]] = set()
        self._sides: dict[str, str] = {}
        self._ever: set[tuple[str, str]] = set()

    def add(self, row: Mapping[str, Any], recording: str, *, spoken: bool = False) -> None:
        """A clip that nobody has corrected. `spoken`: its audio is recorded by people, into the bucket."""
        self.clips[row["id"]] = Clip(dict(row), recording, spoken)

    def count(self, changes: Mapping[str, Words | None] | None = None) -> tuple[int, int]:
        """How many are new at least and at most; with `changes` under way, too."""
        low = high = 0
        for key, clip in self.clips.items():
            states = [clip.now, *clip.coming]
            if changes and key in changes:
                states.append(changes[key])
            verdicts = [self._counts(key, clip, state) for state in states]
            low += all(verdict is True for verdict in verdicts)
            high += any(verdict is not False for verdict in verdicts)
        return low, high

    def permits(self, changes: Mapping[str, Words | None]) -> bool:
        """Whether these changes keep it plain how often the bar was crossed: never back below it before a run has
        begun, and never far above."""
        low, high = self.count(changes)
        return high < self.bar + self._slack and not (self.count()[0] >= self.bar > low)

    @contextmanager
    def under_way(self, changes: Mapping[str, Words | None]) -> Iterator[None]:
        """While people wait for their answer."""
        for key, words in changes.items():
            self.clips[key].coming.append(words)
            if words:
                self._ever.add((key, words.md5))
        yield
        for key, words in changes.items():
            clip = self.clips[key]
            clip.coming.remove(words)
            clip.now = words

    def taken(self, key: str, tag: str) -> None:
        """The answer has come that the take is stored, under this tag."""
        words = self.clips[key].now
        assert words
        self.clips[key].now = Words(words.text, tag)

    def refresh(self, db: psycopg.Connection[Any]) -> None:
        """Look which runs have begun, and whether the bar is crossed."""
        self._sides = dict(db.execute("select recording, side from training_recordings").fetchall())
        for run, items in sampled(db, self.begun[-1].run if self.begun else 0):
            fresh = {item for item in items if not self._known(*item)}
            strange = tuple(str(item) for item in fresh if item[:2] not in self._ever)
            self.begun.append(Begun(run, len(fresh), strange))
            self._attempted |= items
            self._words |= {item[:2] for item in items}
            if len(fresh) >= self.bar:
                self.reached += not self.waiting  # it saw what nobody had been told yet
                self.waiting = False
        if not self.waiting and self.count()[0] >= self.bar:
            self.waiting = True
            self.reached += 1

    @property
    def crossings(self) -> list[Begun]:
        """The runs that began because enough was new."""
        return [begun for begun in self.begun if begun.fresh >= self.bar]

    def _counts(self, key: str, clip: Clip, words: Words | None) -> bool | None:
        side = self._sides.get(clip.recording)
        if words is None or side == "held-out" or self._known(key, words.md5, words.tag):
            return False
        return True if side else None

    def _known(self, key: str, text_md5: str, tag: str | None) -> bool:
        return (key, text_md5) in self._words if tag is None else (key, text_md5, tag) in self._attempted
