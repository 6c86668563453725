"""Which versions' weights are kept."""

from __future__ import annotations

from typing import Any

from daemon.learning.ports import Version
from daemon.learning.retention import keep


def version(number: int, stage: str, live_seq: int | None = None, **changes: Any) -> Version:
    plain = {"name": f"trained-{number:04}", "fingerprint": "f", "kind": "trained", "pinned": False, "reason": None}
    return Version(number, **(plain | {"stage": stage, "live_seq": live_seq} | changes))


def test_what_serves_and_what_a_roll_back_returns_to() -> None:
    versions = [version(1, "retired", 1), version(2, "retired", 2), version(3, "rejected"), version(4, "live", 3)]
    assert keep(versions) == {2, 4}


def test_the_one_before_is_the_last_to_go_live_and_not_the_highest_number() -> None:
    """Version 1 was live again after 3: live now is 4, and before it was 1."""
    versions = [version(1, "retired", 4), version(2, "retired", 2), version(3, "rejected", 3), version(4, "live", 5)]
    assert keep(versions) == {1, 4}


def test_what_is_in_the_making_and_what_a_person_pinned() -> None:
    versions = [
        version(1, "rejected", 1, pinned=True),
        version(2, "retired", 2, pinned=True),
        version(3, "retired", 3),
        version(4, "retired", 4),
        version(5, "live", 5),
        version(6, "candidate"),
        version(7, "rejected"),
        version(8, "training"),
    ]
    assert keep(versions) == {1, 2, 4, 5, 6, 8}


def test_nothing_was_ever_live() -> None:
    assert keep([]) == set()
    assert keep([version(1, "retired"), version(2, "rejected")]) == set()
