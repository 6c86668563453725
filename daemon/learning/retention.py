"""Which versions' weights stay on disk."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.learning.ports import Version


def keep(versions: Sequence[Version]) -> set[int]:
    """What serves, what may serve next, what is in the making, what a person pinned, and what a roll-back returns to.

    That last is the retired version that went live last.
    """
    kept = {version.id for version in versions if version.pinned or version.stage in ("live", "candidate", "training")}
    retired = [version for version in versions if version.stage == "retired" and version.live_seq is not None]
    if retired:
        kept.add(max(retired, key=lambda version: version.live_seq or 0).id)
    return kept


def previous(versions: Sequence[Version]) -> Version | None:
    """What a roll-back makes live, as the database chooses it: what was live last before the present one, and is not
    turned down."""
    live = next((version.live_seq or 0 for version in versions if version.stage == "live"), None)
    if live is None:
        return None
    earlier = [each for each in versions if each.live_seq and each.live_seq < live and each.stage != "rejected"]
    return max(earlier, key=lambda version: version.live_seq or 0, default=None)
