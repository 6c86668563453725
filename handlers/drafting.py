"""Shall we draft, and with which version?"""

from __future__ import annotations

from collections.abc import Iterable

from handlers.commands import Command, Draft, Lane, Swap
from handlers.policy import Policy
from handlers.snapshot import Snapshot


def draft(snapshot: Snapshot, policy: Policy) -> Iterable[Command]:
    """Draft what is ready with the live version, when this process has it loaded and the lane is free."""
    if snapshot.live is not None and why_not_draft(snapshot) is None:
        yield Draft(version=snapshot.live, batches=policy.drafting.batches_per_turn)


def swap(snapshot: Snapshot, _policy: Policy) -> Iterable[Command]:
    """Load the live version when another one is in memory: somebody promoted it, here or on another host."""
    if snapshot.live is not None and snapshot.live != snapshot.loaded:
        yield Swap(version=snapshot.live)


def why_not_draft(snapshot: Snapshot) -> str | None:
    """What keeps the daemon from drafting, in words; None when nothing does."""
    if snapshot.live is None:
        return "no model version is live yet"
    if snapshot.loaded != snapshot.live:
        return f"version {snapshot.live} is live, and this daemon has version {snapshot.loaded} loaded"
    if snapshot.ready == 0:
        return "no clip wants a draft"
    if Lane.DRAFT in snapshot.busy:
        return "drafting already"
    return None
