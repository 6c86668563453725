"""A polled batch -> frames to the channels it concerns."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from daemon.local.realtime import catalog, registry
from daemon.local.realtime.catalog import Catalog, Connection, TableFacts
from daemon.local.realtime.changes import Change, Renderer, from_message
from daemon.local.realtime.pgoutput import Begin, Delete, Insert, Relation, Update, parse
from daemon.local.realtime.registry import Subscriber
from daemon.local.realtime.subscribe import Target

_BREATHE_EVERY = 100
"""Rows after which other tasks get their turn."""

Delivery = tuple[Subscriber, str, str, list[int]]
"""Subscriber, kind of change, `data`, ids."""


def read_changes(batch: Sequence[bytes]) -> list[Change]:
    """The row changes in a batch of pgoutput messages, in commit order. Raises `pgoutput.MalformedMessageError`."""
    relations: dict[int, Relation] = {}
    changes = []
    commit_us = 0
    for data in batch:
        message = parse(data)
        if isinstance(message, Begin):
            commit_us = message.commit_us
        elif isinstance(message, Relation):
            relations[message.oid] = message
        elif isinstance(message, Insert | Update | Delete):
            changes.append(from_message(message, relations[message.relation], commit_us))
    return changes


class Batch:
    """What holds for every row of one polled batch: the subscribers' roles and how they stand to row security."""

    def __init__(self, connection: Connection, subscribers: Iterable[Subscriber], max_bytes: int) -> None:
        self._connection = connection
        # Whoever joins while the batch is worked on hears of later ones.
        self._subscribers = tuple(subscribers)
        self._max_bytes = max_bytes
        self._above_row_security: frozenset[str] = frozenset()

    async def deliveries(self, source: Catalog, changes: Sequence[Change]) -> list[Delivery]:
        """Every frame of the batch. An error on any row loses the whole batch for everyone, as on the real server."""
        roles = sorted({subscriber.role for subscriber in self._subscribers})
        self._above_row_security = await catalog.bypasses_row_security(self._connection, roles)
        tables = {oid: await source.table(oid, roles) for oid in {change.relation for change in changes}}
        result: list[Delivery] = []
        for at, change in enumerate(changes, start=1):
            if at % _BREATHE_EVERY == 0:
                await asyncio.sleep(0)
            facts = tables[change.relation]
            if facts is not None:
                result += await self._of_change(change, facts)
        return result

    async def _of_change(self, change: Change, facts: TableFacts) -> list[Delivery]:
        concerned = [
            (subscriber, targets)
            for subscriber in self._subscribers
            if (targets := registry.covered(subscriber.targets, change))
        ]
        if not concerned:
            return []
        renderer = Renderer(change, facts, self._max_bytes)
        rendered: dict[tuple[str, tuple[str, ...] | None], str] = {}
        allowed: dict[tuple[str, str], bool] = {}
        result: list[Delivery] = []
        for subscriber, covered in concerned:
            targets = covered
            if renderer.error(subscriber.role) is None:
                targets = registry.passing(targets, change)
                who = (subscriber.role, subscriber.claims_json)
                if targets and who not in allowed:
                    allowed[who] = await self._may_see(change, facts, *who)
                targets = targets if targets and allowed[who] else []
            for select, group in _by_selection(targets):
                what = (subscriber.role, select)
                if what not in rendered:
                    rendered[what] = renderer.render(*what)
                ids = [target.id for target in reversed(group)]
                result.append((subscriber, change.kind, rendered[what], ids))
        return result

    async def _may_see(self, change: Change, facts: TableFacts, role: str, claims_json: str) -> bool:
        if not facts.row_security or change.kind == "DELETE" or role in self._above_row_security:
            return True
        key = [(column.name, change.new.get(column.name)) for column in facts.columns if column.primary_key]
        return await catalog.can_see(self._connection, change.table, key, role, claims_json)


def _by_selection(targets: Sequence[Target]) -> list[tuple[tuple[str, ...] | None, list[Target]]]:
    """One frame for each distinct selection of columns, whole rows first."""
    groups: dict[tuple[str, ...] | None, list[Target]] = {}
    for target in sorted(targets, key=lambda target: target.select is not None):
        groups.setdefault(target.select, []).append(target)
    return list(groups.items())
