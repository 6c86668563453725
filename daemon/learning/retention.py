"""Which versions' weights stay on disk."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

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


def further(versions: Sequence[Version]) -> list[int]:
    """All others, the one that is most likely wanted back first: those that more roll-backs would come to, in that
    order, then those that never served or were turned down, the newest first."""
    kept = keep(versions)
    served = {each.id: each.live_seq for each in versions if each.stage == "retired" and each.live_seq is not None}
    rest = [each.id for each in versions if each.id not in kept]
    return sorted(rest, key=lambda number: (number in served, served.get(number, 0), number), reverse=True)


def chosen(
    versions: Sequence[Version], used: Collection[int], sizes: Mapping[int, int], *, most: int, limit: float
) -> set[int]:
    """Which versions' weights stay on a host.

    Args:
        used: what is in somebody's hands now; stays.
        sizes: version -> bytes, of those that are whole on this host.
        most: how many of the others may stay as well ...
        limit: ... while all that stay take no more than so many bytes.
    """
    kept = keep(versions) | set(used)
    spared = [number for number in further(versions) if number in sizes and number not in kept][:most]
    spare = limit - sum(sizes.get(number, 0) for number in kept)
    while spared and sum(sizes[number] for number in spared) > spare:
        spared.pop()
    return kept | set(spared)


def previous(versions: Sequence[Version]) -> Version | None:
    """What a roll-back makes live, as the database chooses it: what was live last before the present one, and is not
    turned down."""
    live = next((version.live_seq or 0 for version in versions if version.stage == "live"), None)
    if live is None:
        return None
    earlier = [each for each in versions if each.live_seq and each.live_seq < live and each.stage != "rejected"]
    return max(earlier, key=lambda version: version.live_seq or 0, default=None)
