"""Machines at inhuman speed: the daemon's functions as its store calls them, with every way of losing a claim.

A drafter stands for a daemon process of its own: a connection, a name, its claims. It fails, gives back, forgets, comes
back with what it had forgotten, drafts again by another version, and makes versions live so that everything is stale.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import audit
from interleave_ledger import Sql
from psycopg.types.json import Jsonb

LEASE_S = 0.25
"""Short: what is forgotten is claimed again while it is remembered."""
PATIENCE_S = 0.1
"""So long a machine gives people to meet it."""


@dataclass(frozen=True, slots=True)
class Held:
    """A claim, and the number it was given."""

    clip: str
    run: str
    fence: int


class Daemon:
    """The functions, under one worker's name."""

    def __init__(self, connection: Sql, worker: str) -> None:
        self._connection = connection
        self.worker = worker
        self.outcomes: Counter[str] = Counter()

    def claim(
        self, version: int, limit: int, *, lease_s: float = LEASE_S, manual: bool = False, run: str = ""
    ) -> list[Held]:
        """Claim up to so many, of one run or of all."""
        rows = self._connection.execute(
            "select clip_id::text, run_id::text, fence from ambara_claim(%s, %s, %s, %s, %s, %s::uuid[])",
            [self.worker, version, limit, lease_s, manual, [run] if run else None],
        ).fetchall()
        return [Held(*row) for row in rows]

    def submit(self, version: int, held: Sequence[Held]) -> dict[str, str]:
        """Drafts that say under which claim they were made. Returns the outcomes."""
        drafts = [
            {
                "clip_id": each.clip,
                "fence": each.fence,
                "text": audit.stamp(self.worker, each.fence, "machine"),
                "confidence": -0.2,
                "flags": [],
            }
            for each in held
        ]
        rows = self._connection.execute(
            "select clip_id::text, outcome from ambara_submit(%s, %s, %s)", [self.worker, version, Jsonb(drafts)]
        ).fetchall()
        self.outcomes.update(outcome for _, outcome in rows)
        return dict(rows)

    def transaction(self) -> AbstractContextManager[object]:
        """Everything in the block commits at its end."""
        return self._connection.transaction()

    def fail(self, held: Sequence[Held], retry: str, *, manual: bool = False) -> None:
        """Say why not."""
        failures = [
            {"clip_id": each.clip, "fence": each.fence, "retry": retry, "reason": "audio", "message": "no audio"}
            for each in held
        ]
        self._call("ambara_fail(%s, %s, %s)", self.worker, Jsonb(failures), manual)

    def renew(self, held: Sequence[Held]) -> None:
        """Go on working."""
        self._call("ambara_renew(%s, %s::uuid[], %s)", self.worker, [each.clip for each in held], LEASE_S)

    def release(self, held: Sequence[Held]) -> None:
        """Give back."""
        self._call("ambara_release(%s, %s::uuid[])", self.worker, [each.clip for each in held])

    def restore(self, clip: str) -> None:
        """A person wants the first draft of a clip back."""
        self._call("ambara_restore('cli', %s, (select min(id) from drafts where clip_id = %s))", clip, clip)

    def promote(self, version: int) -> None:
        """Make a version live: every draft by another is stale."""
        self._call("ambara_promote(%s, null, 'again')", version)

    def _call(self, function: str, *values: Any) -> None:
        self._connection.execute(f"select {function}".encode(), values)


@dataclass(frozen=True, slots=True)
class Versions:
    """Two that take turns at being live, and one that only people ask for."""

    live: tuple[int, int]
    manual: int


class Drafter:
    """A daemon that is never at rest."""

    def __init__(
        self,
        daemon: Daemon,
        versions: Versions,
        dice: random.Random,
        announce: Callable[[Sequence[Held]], Callable[[], int]],
    ) -> None:
        self.daemon = daemon
        self._versions = versions
        self._dice = dice
        self._announce = announce
        self._forgotten: list[tuple[int, list[Held]]] = []

    def turn(self) -> None:
        """Claim, let people at the clips, and come back with drafts; or one of the other ends of a claim."""
        dice, daemon = self._dice, self.daemon
        version, manual = self._version()
        held = daemon.claim(version, dice.choice([8, 32, 64]), manual=manual)
        if len(held) < 8 and not manual:
            daemon.promote(dice.choice(self._versions.live))
        if self._forgotten and dice.random() < 0.5:
            # Some of these clips it may have again, under another claim.
            daemon.submit(*self._forgotten.pop(dice.randrange(len(self._forgotten))))
        self._draft(held)
        dice.shuffle(held)
        end = dice.random()
        portion = held[: dice.randrange(1, 5)]
        if end < 0.1:
            daemon.fail(portion, dice.choice(["soon", "later", "never"]), manual=manual)
        elif end < 0.2:
            daemon.release(portion)
            self._forgotten.append((version, portion))  # gives back, and its answer comes all the same
        elif end < 0.3:
            self._forgotten.append((version, held))
            return
        elif end < 0.4:
            daemon.renew(held)
        elif end < 0.5 and portion:
            daemon.restore(portion[0].clip)
        self._submit(version, held)

    def _draft(self, held: list[Held]) -> None:
        """Take the time that people need to reach some of these clips, or most."""
        unheard = self._announce(held)
        enough = len(held) * self._dice.choice([0.0, 0.0, 0.1, 0.5, 1.0])
        deadline = time.monotonic() + PATIENCE_S
        while unheard() > enough and time.monotonic() < deadline:
            time.sleep(0.002)

    def _submit(self, version: int, held: list[Held]) -> None:
        """What somebody holds at this moment is brought again."""
        for _ in range(20):
            outcomes = self.daemon.submit(version, held)
            held = [each for each in held if outcomes[each.clip] == "busy"]
            if not held:
                return
            time.sleep(0.002)

    def _version(self) -> tuple[int, bool]:
        if self._dice.random() < 0.2:
            return self._versions.manual, True
        # The one that is not live claims nothing.
        return self._dice.choice(self._versions.live), False
