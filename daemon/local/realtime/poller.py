"""The one reader of the replication slot.

The slot is temporary: it dies with its connection, and what is committed until the next one exists is never sent.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from daemon.local.realtime import catalog, dispatch
from daemon.local.realtime.catalog import Catalog, Connection, TableName
from daemon.local.realtime.faults import Faults
from daemon.local.realtime.ratelimit import EventRate
from daemon.local.realtime.registry import Registry
from daemon.local.realtime.settings import BridgeSettings

log = logging.getLogger(__name__)

APPLICATION_NAME = "realtime_rls"
"""By which the connection is found in `pg_stat_activity`, as on the real server."""

_LOOK = (
    "select data from pg_logical_slot_get_binary_changes(%s, null, %s, 'proto_version', '1', 'publication_names', %s)"
)


@dataclass(slots=True)
class Counters:
    """Since the bridge was made."""

    frames_delivered: int = 0
    rows_dropped: int = 0
    """By the rate limit, by the fault `drop`, or with a batch that a row-security policy broke."""
    slots_created: int = 0
    gave_up: int = 0


class Poller:
    """Holds the slot while there are subscriptions, delivers what it reads, gives up for good if it must."""

    def __init__(self, settings: BridgeSettings, registry: Registry, faults: Faults) -> None:
        self.counters = Counters()
        self.slot_active = False
        self._settings = settings
        self._registry = registry
        self._faults = faults
        self._wanted = asyncio.Event()
        self._attempted = asyncio.Event()
        self._rate: EventRate | None = None

    async def ensure(self) -> None:
        """Return when the slot exists, or when an attempt to make it has failed: nobody is told which."""
        self._wanted.set()
        await self._attempted.wait()

    def deafen(self) -> None:
        """End for good for everyone who is subscribed now; the next subscription starts anew."""
        self.counters.gave_up += 1
        self._registry.forget_all()
        self._wanted.clear()

    async def run(self) -> None:
        """For as long as the bridge lives."""
        while True:
            await self._wanted.wait()
            await self._serve()

    async def _serve(self) -> None:
        settings = self._settings
        away_since: float | None = None
        pause = settings.reconnect_min_s
        while self._wanted.is_set():
            made = self.counters.slots_created
            try:
                async with await catalog.connect(settings, APPLICATION_NAME) as connection:
                    await self._hold_slot(connection)
            except (psycopg.Error, OSError, TimeoutError, ValueError) as error:
                log.warning("realtime: the replication slot is away (%s)", type(error).__name__)
            else:
                return
            finally:
                self.slot_active = False
            if self.counters.slots_created > made:
                away_since, pause = None, settings.reconnect_min_s
            else:
                # Whoever waits for this attempt has its answer, and it is not an honest one.
                self._attempted.set()
            now = time.monotonic()
            away_since = away_since or now
            if self._faults.active("deaf_after_outage") or now - away_since >= settings.give_up_after_s:
                self.deafen()
                self._attempted.clear()
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, settings.reconnect_max_s)

    async def _hold_slot(self, connection: Connection) -> None:
        """Poll until nobody wants changes any more; any error ends the slot with the connection."""
        settings = self._settings
        published = await catalog.published_tables(connection, settings.publication)
        slot = f"supabase_realtime_replication_slot_{secrets.token_hex(4)}"
        async with asyncio.timeout(settings.poll_timeout_s):
            await connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput', true)", [slot])
        self.counters.slots_created += 1
        self.slot_active = True
        self._attempted.set()
        try:
            await self._poll(connection, slot, published)
        finally:
            self._attempted.clear()

    async def _poll(self, connection: Connection, slot: str, published: frozenset[TableName]) -> None:
        settings = self._settings
        source = Catalog(connection)
        checked = used = time.monotonic()
        while self._wanted.is_set():
            async with asyncio.timeout(settings.poll_timeout_s):
                cursor = await connection.execute(
                    _LOOK, [slot, settings.poll_max_changes, settings.publication], binary=True
                )
                messages = [bytes(row[0]) for row in await cursor.fetchall()]
            if messages:
                await self._deliver(connection, source, messages)
            else:
                await asyncio.sleep(settings.poll_interval_s)
            now = time.monotonic()
            if now - checked >= settings.publication_check_s:
                before, published = published, await catalog.published_tables(connection, settings.publication)
                checked = now
                if published != before:
                    for subscriber in self._registry:
                        subscriber.announce_again()
            used = now if len(self._registry) else used
            if now - used >= settings.keep_alive_s:
                self._wanted.clear()

    async def _deliver(self, connection: Connection, source: Catalog, messages: Sequence[bytes]) -> None:
        rate = self._rate_limit()
        changes = dispatch.read_changes(messages)
        if rate.exceeded(time.monotonic()):
            self.counters.rows_dropped += len(changes)
            return
        kept = [change for change in changes if self._faults.take("drop") is None]
        self.counters.rows_dropped += len(changes) - len(kept)
        batch = dispatch.Batch(connection, self._registry, self._settings.max_record_bytes)
        try:
            deliveries = await batch.deliveries(source, kept)
        except psycopg.Error:
            # Such as a policy that raises. PostgreSQL drops a session's temporary slots on any error.
            self.counters.rows_dropped += len(kept)
            raise
        rate.add(sum(len(ids) for _, _, _, ids in deliveries), time.monotonic())
        for at, (subscriber, kind, data, ids) in enumerate(deliveries, start=1):
            subscriber.deliver(kind, data, ids)
            self.counters.frames_delivered += 1
            if at % 100 == 0:
                await asyncio.sleep(0)

    def _rate_limit(self) -> EventRate:
        """Counts from the first batch on, over outages of the database too."""
        if self._rate is None:
            settings = self._settings
            self._rate = EventRate(
                limit=settings.max_events_per_second,
                bucket_s=settings.rate_bucket_s,
                buckets=settings.rate_buckets,
                now=time.monotonic(),
            )
        return self._rate
