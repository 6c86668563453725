"""The feed against a Realtime server that misbehaves on command.

A feed is allowed to miss changes, never to stay deaf or to end; and each time that it may have missed some, it rings
for a sweep. Its patience is scaled down to fractions of a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from structlog.testing import capture_logs

from daemon.errors import TemporaryError
from daemon.feed import Feed, FeedSettings, FeedState
from daemon.feed.canary import Canary
from daemon.local.stack import LocalStack
from handlers.events import ClipsChanged, Event, SweepDue

GUARD_S = 30.0
"""Only a test that would fail anyway waits for so long."""

QUICK = {"canary_timeout_s": 1.0, "join_timeout_s": 1.0}
"""For a feed that has to find out for itself that it is deaf."""


async def until(what: Callable[[], bool]) -> None:
    """Return as soon as `what` holds."""
    async with asyncio.timeout(GUARD_S):
        while not what():  # noqa: ASYNC110 - the state of a feed is a plain attribute
            await asyncio.sleep(0.01)


def open_files() -> int:
    """How many descriptors this process holds."""
    return len(list(Path("/proc/self/fd").iterdir()))


@dataclass
class House:
    """A stack, its faults, and what its feed rang."""

    stack: LocalStack
    db: psycopg.Connection[tuple[object, ...]]
    http: httpx.AsyncClient
    rings: list[Event] = field(default_factory=list)

    async def beat(self) -> int:
        answer = await self.http.post("/rest/v1/rpc/ambara_beat", json={"p_worker": "test.worker-1", "p_state": {}})
        return int(answer.raise_for_status().text)

    async def fault(self, action: str, **options: Any) -> None:
        answer = await self.http.post("/_local/realtime/faults", json={"action": action, **options})
        answer.raise_for_status()

    async def count(self, what: str) -> int:
        """One of the server's counters."""
        answer = await self.http.get("/_local/realtime/faults")
        return int(answer.raise_for_status().json()[what])

    async def has_sockets(self, number: int) -> None:
        """Wait until the server, which hears of an end later than the client, has so many sockets."""
        async with asyncio.timeout(GUARD_S):
            while await self.count("sockets") != number:  # noqa: ASYNC110 - the server is another process
                await asyncio.sleep(0.01)

    def sql(self, statement: str) -> None:
        self.db.execute(statement.encode())

    def insert(self, clips: int = 1) -> None:
        self.sql(
            "with run as (insert into runs (label) values ('test') returning id) insert into clips (run_id, file_name) "
            f"select run.id, n || '.wav' from run, generate_series(1, {clips}) n"
        )

    async def rings_for_clips(self, change: Callable[[], None]) -> None:
        """Make a change and wait until it has rung."""
        self.rings.clear()
        change()
        await until(lambda: ClipsChanged() in self.rings)

    @asynccontextmanager
    async def feed(self, *, live: bool = True, **options: Any) -> AsyncIterator[Feed]:
        """A running feed; with `live`, one that is."""
        defaults = {
            "url": self.stack.url,
            "key": self.stack.service_role_key,
            "worker": "test.worker-1",
            "canary_s": 0.3,
            "canary_timeout_s": 10.0,
            "join_timeout_s": 10.0,
            "backoff_max_s": 0.2,
        }
        calls = {name: options.pop(name, mine) for name, mine in (("ring", self.rings.append), ("beat", self.beat))}
        feed = Feed(FeedSettings(**defaults | options), calls["ring"], calls["beat"])
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(feed.run())
            if live:
                await until(lambda: feed.state is FeedState.LIVE)
            yield feed
            running.cancel()

    async def comes_back(self, feed: Feed, generation: int) -> None:
        """Wait until a later connection is live; it must have rung for a sweep, and must ring for clips."""
        await until(lambda: feed.generation > generation and feed.state is FeedState.LIVE)
        assert SweepDue() in self.rings
        assert feed.reason is None
        await self.rings_for_clips(self.insert)


@pytest.fixture
async def house(local_stack: LocalStack, db: psycopg.Connection[tuple[object, ...]]) -> AsyncIterator[House]:
    key = local_stack.service_role_key
    headers = {"apikey": key, "authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=local_stack.url, headers=headers, timeout=5) as http:
        yield House(local_stack, db, http)
        await http.post("/_local/realtime/faults", json={"action": "clear"})


async def test_every_kind_of_change_rings(house: House) -> None:
    async with house.feed() as feed:
        assert house.rings[0] == SweepDue()
        await house.rings_for_clips(house.insert)
        await house.rings_for_clips(lambda: house.sql("update clips set corrected_transcription = 'x'"))
        await house.rings_for_clips(lambda: house.sql("delete from clips"))
        assert (feed.state, feed.reason, feed.generation) == (FeedState.LIVE, None, 1)


async def test_a_burst_is_few_rings_and_the_last_one_comes_after_the_last_change(house: House) -> None:
    async with house.feed():
        house.rings.clear()
        house.insert(200)
        await until(lambda: ClipsChanged() in house.rings)
        await house.rings_for_clips(house.insert)
        assert house.rings.count(ClipsChanged()) <= 10


async def test_other_daemons_beats_are_not_heard(house: House) -> None:
    """The server sends none of them: after twenty, the next frame is the clip's."""
    async with house.feed(canary_s=600.0) as feed:
        before = await house.count("delivered")
        house.sql("select ambara_beat('test.worker-2', '{}') from generate_series(1, 20)")
        await house.rings_for_clips(house.insert)
        assert await house.count("delivered") - before == 1
        assert feed.generation == 1


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, None])
async def test_a_connection_that_ends_is_replaced(house: House, code: int | None) -> None:
    async with house.feed() as feed:
        house.rings.clear()
        await (house.fault("close", code=code) if code else house.fault("cut"))
        await house.comes_back(feed, 1)


async def test_a_server_that_was_away_for_long_is_found_again(house: House) -> None:
    """Longer than the client's own five tries."""
    async with house.feed() as feed:
        await asyncio.to_thread(house.stack.stop_gateway)
        try:
            await until(lambda: feed.generation > 20)
            assert feed.state is FeedState.CONNECTING
            assert feed.reason == "Realtime cannot be reached (ConnectionRefusedError)."
            house.rings.clear()
        finally:
            await asyncio.to_thread(house.stack.start_gateway)
        await house.comes_back(feed, 20)


@pytest.mark.parametrize("fault", ["mute", "freeze"])
async def test_a_server_that_falls_silent_is_left(house: House, fault: str) -> None:
    async with house.feed(**QUICK) as feed:
        await house.fault(fault)
        await until(lambda: feed.state is FeedState.DEAF)
        assert feed.reason is not None
        house.rings.clear()
        await house.fault("clear")
        await house.comes_back(feed, 1)


async def test_a_subscription_that_went_deaf_is_replaced(house: House) -> None:
    """The server says nothing, and only new joins hear."""
    async with house.feed(**QUICK) as feed:
        house.rings.clear()
        await house.fault("deafen")
        await until(lambda: feed.state is FeedState.DEAF)
        await house.comes_back(feed, 1)


async def test_a_server_that_says_subscribed_and_sends_nothing_is_never_live(house: House) -> None:
    await house.fault("hollow", count=1)
    async with house.feed(live=False, **QUICK) as feed:
        await until(lambda: feed.state is not FeedState.CONNECTING)
        assert feed.state is FeedState.DEAF
        await house.comes_back(feed, 1)


async def test_a_late_goodbye_to_an_older_join_does_not_leave_the_feed_deaf(house: House) -> None:
    """Found at once: no canary is sung for a long time here."""
    async with house.feed(canary_s=2 * GUARD_S) as feed:
        house.rings.clear()
        await house.fault("stale_close")
        await house.comes_back(feed, 1)


@pytest.mark.parametrize(("fault", "options"), [("delay_system", {"delay_s": 60}), ("lose_join_replies", {})])
async def test_a_join_that_is_not_confirmed_is_given_up(house: House, fault: str, options: dict[str, int]) -> None:
    await house.fault(fault, count=1, **options)
    async with house.feed(live=False, **QUICK) as feed:
        await until(lambda: feed.state is not FeedState.CONNECTING)
        assert feed.state is FeedState.DEAF
        await house.comes_back(feed, 1)


@pytest.mark.parametrize("name", ["_listen", "_heartbeat"])
async def test_a_client_whose_task_ends_without_a_word_is_replaced(house: House, name: str) -> None:
    async with house.feed(canary_s=2 * GUARD_S) as feed:
        house.rings.clear()
        tasks = [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__name__", "") == name]
        assert len(tasks) == 1
        tasks[0].cancel()
        await house.comes_back(feed, 1)


async def test_an_exception_in_a_callback_is_a_loss_and_not_the_end(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_canary: Canary, _number: int) -> None:
        raise ZeroDivisionError

    async with house.feed() as feed:
        house.rings.clear()
        with monkeypatch.context() as broken:
            broken.setattr(Canary, "hear", fail)
            await until(lambda: feed.reason == "A frame could not be handled (ZeroDivisionError).")
        await house.comes_back(feed, 1)


async def test_a_ring_that_fails_does_not_end_the_feed(house: House) -> None:
    def ring(event: Event) -> None:
        house.rings.append(event)
        raise RuntimeError("no luck")

    with capture_logs() as lines:
        async with house.feed(ring=ring) as feed:
            await house.rings_for_clips(house.insert)
            await house.rings_for_clips(house.insert)
            assert feed.generation == 1
    assert [line["error"] for line in lines if line["event"] == "ringing failed"] == ["RuntimeError"]


@pytest.mark.parametrize("table", ["clips", "ambara_daemons"])
async def test_a_table_that_is_not_published_is_named_with_the_remedy(house: House, table: str) -> None:
    house.sql(f"alter publication supabase_realtime drop table {table}")
    remedy = f"alter publication supabase_realtime add table public.{table};"
    before = asyncio.all_tasks()
    try:
        async with house.feed(live=False) as feed:
            await until(lambda: feed.state is FeedState.ABSENT)
            assert feed.reason is not None
            assert feed.reason.endswith(f"Run: {remedy}")
            house.sql(remedy)
            await until(lambda: feed.state is FeedState.LIVE)
        assert asyncio.all_tasks() == before
    finally:
        published = house.db.execute("select from pg_publication_tables where tablename = %s", [table]).fetchone()
        if published is None:
            house.sql(remedy)


async def test_a_refused_key_is_said_and_tried_again(house: House, caplog: pytest.LogCaptureFixture) -> None:
    key = house.stack.service_role_key[:-6] + "abcdef"
    with caplog.at_level(logging.DEBUG):
        async with house.feed(live=False, key=key) as feed:
            await until(lambda: feed.generation > 3)
            assert feed.state is FeedState.ABSENT
            assert feed.reason is not None
            assert "Set SUPABASE_SERVICE_ROLE_KEY" in feed.reason
            assert key not in repr(feed._settings)
    assert key not in caplog.text


async def test_a_token_that_expires_is_said_and_a_server_that_took_it_for_expired_is_found_again(house: House) -> None:
    async with house.feed() as feed:
        house.rings.clear()
        await house.fault("expire_tokens")
        await house.comes_back(feed, 1)
    short = house.stack.mint("service_role", exp=int(time.time()) + 3)
    async with house.feed(key=short) as feed:
        await until(lambda: feed.state is FeedState.ABSENT)
        await until(lambda: feed.reason is not None and "Token has expired" in feed.reason)


async def test_a_server_error_is_no_refusal(house: House) -> None:
    await house.fault("refuse", status=503)
    async with house.feed(live=False) as feed:
        await until(lambda: feed.generation > 2)
        assert (feed.state, feed.reason) == (FeedState.CONNECTING, "Realtime answers HTTP 503.")
        await house.fault("clear")
        await house.comes_back(feed, 2)


async def test_a_beat_that_cannot_be_written_leaves_the_feed_alone(house: House) -> None:
    async def beat() -> int:
        raise TemporaryError("The database is away.")

    with capture_logs() as lines:
        async with house.feed(live=False, beat=beat, canary_s=0.05) as feed:
            await until(lambda: house.rings.count(SweepDue()) == 2)  # joined, and then told that changes flow
            for _ in range(3):
                await house.rings_for_clips(house.insert)
            assert (feed.state, feed.generation) == (FeedState.CONNECTING, 1)
    assert len(lines) == 1


async def test_neither_keys_nor_rows_are_logged(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """Not even the frame of a row that the role may not read any more, which the client cannot parse."""
    with caplog.at_level(logging.DEBUG):
        async with house.feed():
            house.sql("revoke select on clips from service_role")
            try:
                house.insert()
                await house.rings_for_clips(lambda: house.sql("delete from clips"))
            finally:
                house.sql("grant select on clips to service_role")
    assert house.stack.service_role_key not in caplog.text
    assert "clips" not in caplog.text


async def test_a_feed_is_cancelled_quickly_although_the_server_is_frozen(house: House) -> None:
    before = asyncio.all_tasks()
    async with house.feed():
        await house.fault("freeze")
        began = time.monotonic()
    assert time.monotonic() - began < GUARD_S / 2
    assert asyncio.all_tasks() == before


async def test_a_feed_that_is_cancelled_while_it_joins_leaves_nothing_behind(house: House) -> None:
    await house.fault("lose_join_replies")
    before = asyncio.all_tasks()
    async with house.feed(live=False):
        async with asyncio.timeout(GUARD_S):
            while await house.count("sockets") == 0:  # noqa: ASYNC110 - the server is another process
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
    assert asyncio.all_tasks() == before


async def test_twenty_connections_leave_nothing_behind(house: House) -> None:
    await house.has_sockets(0)  # opens the test's own connection, which would count below
    tasks, files = asyncio.all_tasks(), open_files()
    async with house.feed(canary_timeout_s=0.5) as feed:
        for turn in range(20):
            generation = feed.generation
            action = ("cut", "close", "stale_close", "deafen", "expire_tokens")[turn % 5]
            await house.fault(action)
            await until(lambda seen=generation: feed.generation > seen and feed.state is FeedState.LIVE)
        await house.has_sockets(1)
        assert len(asyncio.all_tasks() - tasks) <= 10
    assert asyncio.all_tasks() == tasks
    assert open_files() <= files
    await house.has_sockets(0)
