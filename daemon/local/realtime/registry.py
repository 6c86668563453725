"""Who is subscribed to what, and which of them a changed row concerns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from daemon.local.realtime.changes import Change
from daemon.local.realtime.filters import judge
from daemon.local.realtime.subscribe import Target


class Subscriber(Protocol):
    """A joined channel, as far as changes are concerned."""

    targets: tuple[Target, ...]

    @property
    def role(self) -> str: ...

    @property
    def claims_json(self) -> str:
        """The token's claims as JSON text, for row security."""

    def deliver(self, kind: str, data: str, ids: list[int]) -> None:
        """Take the frame of one change; `data` is JSON text."""

    def announce_again(self) -> None:
        """Subscribe anew, because the publication has changed."""


class Registry:
    """The subscribers of a bridge. Insertion order is delivery order."""

    def __init__(self) -> None:
        self._subscribers: dict[Subscriber, None] = {}

    def add(self, subscriber: Subscriber) -> None:
        self._subscribers[subscriber] = None

    def remove(self, subscriber: Subscriber) -> None:
        self._subscribers.pop(subscriber, None)

    def forget_all(self) -> None:
        """Nobody is told: the channels stay joined and deaf."""
        self._subscribers.clear()

    def __len__(self) -> int:
        return sum(len(subscriber.targets) for subscriber in self._subscribers)

    def __iter__(self) -> Iterator[Subscriber]:
        return iter(tuple(self._subscribers))


def covered(targets: Iterable[Target], change: Change) -> list[Target]:
    """The targets of one channel for this event on this table, whatever their filters say."""
    return [target for target in targets if target.matches(change.kind, change.table)]


def passing(targets: Iterable[Target], change: Change) -> list[Target]:
    """Those of them whose every condition holds on the new row, or on the old one of a DELETE."""
    row = change.judged()
    return [
        target
        for target in targets
        if all(
            condition.column in row and judge(condition, row[condition.column])
            for condition in target.tables[change.table]
        )
    ]
