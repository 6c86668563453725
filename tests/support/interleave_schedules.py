"""Every act of a person at every place of a draft's life, one after the other, so that each order does happen.

Beside the acts stand the ways in which a machine loses a claim. A schedule knows what has to come of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
from interleave_drafters import Daemon, Held, Versions
from interleave_ledger import Sql
from interleave_people import Person

IMPATIENCE_MS = 300
"""A machine that waits so long for a person waits for ever."""
GUARD_S = 10.0

ACTS = {
    "autosave": Person.autosave,
    "save": Person.save,
    "discard": Person.discard,
    "discard and undo": Person.discard_and_undo,
    "bulk discard": Person.bulk_discard,
    "record": Person.record,
    "mark as split": Person.mark_split,
    "split and merge back": Person.mark_and_merge,
    "sync again": Person.sync_again,
    "delete run": Person.delete_run,
    "split another": Person.chapter,
    "reading session": Person.reading,
}
PENDING_AFTER = {"discard and undo", "split and merge back", "sync again", "split another", "reading session"}
"""The clip may be drafted afterwards."""
ELSEWHERE = {"split another", "reading session"}
"""The clip itself is not written."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One person, two machines."""

    db: Sql
    person: Person
    daemon: Daemon
    other: Daemon
    versions: Versions

    def claimed(self, *, lease_s: float = 60.0) -> Held:
        """A clip of a new run, claimed."""
        return self.claim(self.daemon, self.person.sync(), lease_s=lease_s)

    def claim(self, daemon: Daemon, run: str, *, lease_s: float = 60.0) -> Held:
        """One clip of a run. None to claim is a fault too."""
        [held] = daemon.claim(self.versions.live[0], 1, lease_s=lease_s, run=run)
        return held

    def submit(self, held: Held, daemon: Daemon | None = None) -> str:
        """Bring the draft. Returns what became of it."""
        try:
            return (daemon or self.daemon).submit(self.versions.live[0], [held])[held.clip]
        except psycopg.errors.LockNotAvailable:
            return "waited"

    def expect(self, wanted: str, got: str) -> list[str]:
        """What is wrong with an outcome."""
        return [] if wanted == got else [f"{got}, and not {wanted}"]

    # Where the act comes.

    def before(self, name: str) -> list[str]:
        """Before the claim: what a person has is not even claimed."""
        run = self.person.sync()
        clip = self.person.clips_of(run)[0]
        ACTS[name](self.person, clip)
        held = self._try_claim(run, clip)
        wrong = [] if (held is not None) == (name in PENDING_AFTER) else [f"claimed: {held is not None}"]
        return wrong + (self.expect("written", self.submit(held)) if held else [])

    def claim_while_held(self, name: str) -> list[str]:
        """A person's transaction is open when a machine looks for work, which passes by."""
        run = self.person.sync()
        clip = self.person.clips_of(run)[0]
        with self.person.holding(keep=True):
            ACTS[name](self.person, clip)
            try:
                held = self._try_claim(run, clip)
            except psycopg.errors.LockNotAvailable:
                return ["waited"]
        return [] if (held is not None) == (name in ELSEWHERE) else [f"claimed: {held is not None}"]

    def between(self, name: str) -> list[str]:
        """Between claim and submission."""
        held = self.claimed()
        ACTS[name](self.person, held.clip)
        return self.expect("written" if name in ELSEWHERE else "dropped", self.submit(held))

    def held_and_kept(self, name: str) -> list[str]:
        """A person's transaction is open when the draft comes, and commits."""
        return self._held(name, keep=True)

    def held_and_taken_back(self, name: str) -> list[str]:
        """A person's transaction is open when the draft comes, and rolls back."""
        return self._held(name, keep=False)

    def during(self, name: str) -> list[str]:
        """The submission has the row when the person comes, who waits for it."""
        held = self.claimed()
        with self.daemon.transaction():
            outcome = self.submit(held)
            thread = threading.Thread(target=ACTS[name], args=(self.person, held.clip))
            thread.start()
            self._until_waiting(thread)
        thread.join()
        return self.expect("written", outcome)

    def after(self, name: str) -> list[str]:
        """When the draft is there."""
        held = self.claimed()
        outcome = self.submit(held)
        ACTS[name](self.person, held.clip)
        return self.expect("written", outcome) + self.expect("dropped", self.submit(held))

    def _held(self, name: str, *, keep: bool) -> list[str]:
        held = self.claimed()
        with self.person.holding(keep=keep):
            ACTS[name](self.person, held.clip)
            during = self.submit(held)
        if name in ELSEWHERE:
            return self.expect("written", during)
        return self.expect("busy", during) + self.expect("dropped" if keep else "written", self.submit(held))

    def _try_claim(self, run: str, clip: str) -> Held | None:
        found = self.daemon.claim(self.versions.live[0], 100, lease_s=60.0, run=run)
        return next((held for held in found if held.clip == clip), None)

    def _until_waiting(self, thread: threading.Thread) -> None:
        """Until the thread is done, or waits for a lock."""
        deadline = time.monotonic() + GUARD_S
        query = "select exists (select from pg_stat_activity where wait_event_type = 'Lock')"
        while thread.is_alive() and self.db.execute(query).fetchone() != (True,):
            assert time.monotonic() < deadline, "neither done nor waiting"
            time.sleep(0.002)


def lost_by_release(stage: Stage) -> list[str]:
    """Given back; the draft comes all the same."""
    held = stage.claimed()
    stage.daemon.release([held])
    return stage.expect("dropped", stage.submit(held))


def lost_to_another(stage: Stage) -> list[str]:
    """Paused beyond its lease, and somebody else has the clip."""
    held = stage.claimed(lease_s=0.0)
    theirs = stage.claim(stage.other, held.run)
    assert theirs.clip == held.clip
    return stage.expect("dropped", stage.submit(held)) + stage.expect("written", stage.submit(theirs, stage.other))


def lost_to_itself(stage: Stage) -> list[str]:
    """Restarted under its old name: what it remembered from before is void."""
    held = stage.claimed(lease_s=0.0)
    assert stage.claim(stage.daemon, held.run).clip == held.clip
    return stage.expect("dropped", stage.submit(held))


def becomes_a_piece(stage: Stage) -> list[str]:
    """Claimed as an extraction's clip, and before the draft a chapter comes to its run."""
    run = stage.person.sync(folder="chunks")
    stage.db.execute("update clips set draft_transcription = null where run_id = %s", [run])  # nobody's text
    held = stage.claim(stage.daemon, run)
    stage.person.insert(held.run, ["chapters/late.wav"], "And God said", paragraphs=[{"text": "And God said"}])
    return stage.expect("dropped", stage.submit(held))


def becomes_a_reading(stage: Stage) -> list[str]:
    """Claimed, and before the draft its run becomes one to be read aloud."""
    held = stage.claimed()
    stage.db.execute("update runs set type = 'reading' where id = %s", [held.run])
    return stage.expect("dropped", stage.submit(held))


def never_drafted(stage: Stage) -> list[str]:
    """Everything that a person wrote, in one run: chapter, pieces, texts to read."""
    run = stage.person.sync()
    stage.person.chapter(stage.person.clips_of(run)[0])
    [chapter] = stage.person.insert(run, ["chapters/whole.wav"], "And God said", paragraphs=[{"text": "And God said"}])
    reading = stage.person.reading(chapter)
    found = [held for each in (run, reading) for held in stage.daemon.claim(stage.versions.live[0], 100, run=each)]
    for held in found:
        stage.submit(held)
    texts = {held.clip for held in found} - set(stage.person.owned())
    return [f"claimed {len(texts)} of a person's texts"] if texts else []


MACHINES: tuple[Callable[[Stage], list[str]], ...] = (
    lost_by_release, lost_to_another, lost_to_itself, becomes_a_piece, becomes_a_reading, never_drafted,
)  # fmt: skip


def schedules(stage: Stage) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """All of them, by name. Each, when called, says what is wrong."""
    for place in (
        Stage.before,
        Stage.claim_while_held,
        Stage.between,
        Stage.held_and_kept,
        Stage.held_and_taken_back,
        Stage.during,
        Stage.after,
    ):
        for name in ACTS:
            yield f"{name}: {place.__name__}", lambda p=place, n=name: p(stage, n)
    for machine in MACHINES:
        yield machine.__name__, lambda m=machine: m(stage)
