"""The guarded write against a model in a few lines of Python, under random histories on a real PostgreSQL.

The model says of each clip whether it may be drafted, who has it, and what its draft is. After every step the database
says the same: which clips want a draft (I1), what people wrote (I2), and that no draft came where none may be (I4).
"""

from __future__ import annotations

from collections.abc import Callable

import audit
from fault_record import Fault
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from interleave_drafters import Daemon, Held, Versions
from interleave_model_people import NUMBER, Claimed, Clip, People
from witness import scalar

WORKERS = ("a", "b")
WORKER = st.sampled_from(WORKERS)
ROWS = """
select id::text, status, corrected_transcription, paragraphs is not null, run_id::text, file_name, draft_transcription
from clips
"""


class Queue(People):
    """Beside the people, two workers that claim, draft, fail, pause and crash."""

    fault: Fault
    daemons: dict[str, Daemon]
    versions: Versions

    @initialize()
    def empty(self) -> None:
        self.begin()
        self.db.execute("truncate audit.log, audit.violations")
        # What a worker believes that it has, right or wrong, and by which version.
        self.memory: dict[str, list[tuple[int, Held]]] = {worker: [] for worker in WORKERS}
        self.daemons["a"].promote(self.versions.live[0])
        self.live = self.versions.live[0]
        self.number = self.live_number()
        # Where the interesting histories begin.
        self.arrive(0)
        self.arrive(1)
        self.claim("a", 1)

    def wanting(self, clip: Clip) -> bool:
        return (
            self.draftable(clip)
            and clip.lease != "runs"
            and clip.settled != self.number
            and clip.unfit != (self.number, clip.changed)
        )

    @rule()
    def go_live(self) -> None:
        self.live = next(version for version in self.versions.live if version != self.live)
        self.daemons["a"].promote(self.live)
        self.number = self.live_number()

    @rule(worker=WORKER, limit=st.sampled_from([1, 2, 100]))
    def claim(self, worker: str, limit: int) -> None:
        wanted = {i for i, clip in self.clips.items() if self.wanting(clip)}
        held = self.daemons[worker].claim(self.live, limit, lease_s=600)
        self.fault.holds("I1 what wants a draft", {each.clip for each in held} - wanted)
        self.fault.holds("I1 what wants a draft", wanted if len(held) != min(limit, len(wanted)) else [])
        for each in held:
            clip = self.clips[each.clip]
            clip.claim, clip.lease = Claimed(worker, each.fence, clip.changed, self.number), "runs"
            self.memory[worker].append((self.live, each))

    def take(self, number: int) -> tuple[str, int, Held]:
        """Something that somebody remembers."""
        every = [(worker, *each) for worker, memory in self.memory.items() for each in memory]
        worker, version, held = every[number % len(every)]
        self.memory[worker].remove((version, held))
        return worker, version, held

    @rule(worker=WORKER)
    def draft(self, worker: str) -> None:
        """As it goes on most days."""
        self.claim(worker, 100)
        while any(self.memory.values()):
            self.submit(0)

    @precondition(lambda self: self.clips)
    @rule(worker=WORKER, number=NUMBER, act=st.sampled_from([People.undo, People.sync_again, People.discard]))
    def cross(self, worker: str, number: int, act: Callable[[People, int], None]) -> None:
        """A person comes between the claims and the drafts."""
        self.claim(worker, 100)
        act(self, number)
        while any(self.memory.values()):
            self.submit(0)

    @rule(worker=WORKER)
    def restart(self, worker: str) -> None:
        """Back under its old name when its leases have ended, and with what it remembers from before."""
        self.expire()
        self.claim(worker, 100)

    @rule(worker=WORKER)
    def restart_and_submit(self, worker: str) -> None:
        """What it remembers from before goes out first."""
        self.claim(worker, 100)
        self.restart(worker)
        while any(self.memory.values()):
            self.submit(0)

    @precondition(lambda self: any(self.memory.values()))
    @rule(number=NUMBER)
    def submit(self, number: int) -> None:
        worker, version, held = self.take(number)
        clip = self.clips.get(held.clip)
        claim = clip.owned(worker, held) if clip else None
        right = claim is not None and self.draftable(clip) and claim.changed == clip.changed
        outcome = self.daemons[worker].submit(version, [held])[held.clip]
        self.fault.holds("I4 no late draft", [] if outcome == ("written" if right else "dropped") else [outcome])
        if right:
            clip.draft, clip.settled, clip.unfit = audit.stamp(worker, held.fence, "machine"), claim.number, None
        if claim:
            clip.claim, clip.lease = None, "none"

    @precondition(lambda self: any(self.memory.values()))
    @rule(number=NUMBER)
    def fail(self, number: int) -> None:
        worker, _, held = self.take(number)
        self.daemons[worker].fail([held], "never")
        clip = self.clips.get(held.clip)
        if clip and (claim := clip.owned(worker, held)):
            clip.unfit, clip.lease = (claim.number, claim.changed), "none"

    @rule(worker=WORKER)
    def release(self, worker: str) -> None:
        """A clean end."""
        held = [held for _, held in self.memory[worker]]
        self.daemons[worker].release(held)
        for clip in (self.clips[each.clip] for each in held if each.clip in self.clips):
            if clip.lease != "none" and clip.claim and clip.claim.worker == worker:
                clip.claim, clip.lease = None, "none"

    @rule(worker=WORKER)
    def release_and_submit(self, worker: str) -> None:
        """The end was clean, and the drafts were already on their way."""
        self.claim(worker, 100)
        self.release(worker)
        while any(self.memory.values()):
            self.submit(0)

    @rule()
    def expire(self) -> None:
        """Everybody is paused beyond their leases, and wakes up."""
        self.db.execute("update draft_state set lease_until = now() - interval '1 s' where lease_until is not null")
        for clip in self.clips.values():
            clip.lease = "none" if clip.lease == "none" else "is over"

    @rule(worker=WORKER)
    def crash(self, worker: str) -> None:
        self.memory[worker].clear()

    # What has to be true.

    @invariant()
    def the_database_says_the_same(self) -> None:
        rows = {row[0]: row[1:] for row in self.db.execute(ROWS).fetchall()}
        said = {i: clip.row() for i, clip in self.clips.items()}
        self.fault.holds("I2 rows as people left them", rows.items() ^ said.items())
        query = "select clip_id::text from ambara_wanting(%s, null, null)"
        wanted = {row[0] for row in self.db.execute(query, [self.number])}
        self.fault.holds("I1 what wants a draft", wanted ^ {i for i, clip in self.clips.items() if self.wanting(clip)})
        queued = self.db.execute("select clip_id::text from ambara_next(%s, 1000)", [self.number]).fetchall()
        self.fault.holds("I1 the queue offers it", [] if sorted(i for (i,) in queued) == sorted(wanted) else queued)
        self.fault.holds("I4 no late draft", audit.violations(self.db))

    def live_number(self) -> int:
        """Rises each time that a version goes live."""
        return int(scalar(self.db, "select live_seq from model_versions where stage = 'live'"))
