"""The feed's parts by themselves: what is said about a loss, how rings are held together, when a canary is lost."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from functools import partial

import pytest
from structlog.testing import capture_logs
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.frames import Close
from websockets.http11 import Response

from daemon.feed import Feed, FeedSettings, FeedState
from daemon.feed.canary import Canary
from daemon.feed.doorbell import Doorbell
from daemon.feed.loss import of_handshake, of_status
from daemon.feed.supervisor import pause
from handlers.events import ClipsChanged, Event, SweepDue

GUARD_S = 20.0

UNPUBLISHED = (
    "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given connect "
    "parameters: [event: *, schema: public, table: {}, filters: [], select: nil]"
)
UNPARSED = (
    "Unable to subscribe to changes with given parameters. An exception happened so please check your connect "
    "parameters: [event: *, schema: public, table: clips]. Exception: ERROR P0001 (raise_exception) invalid column"
)


def system(message: str, extension: str = "postgres_changes") -> Exception:
    """A `system` error frame as the client hands it over."""
    frame = {"channel": "c", "extension": extension, "message": message, "status": "error"}
    return Exception(json.dumps(frame))


def refused(reason: str) -> Exception:
    """A refused join as the client hands it over."""
    return Exception(json.dumps({"reason": reason}))


def answer(status: int, body: bytes = b"") -> Exception:
    return InvalidStatus(Response(status, "", Headers(), body))


@pytest.mark.parametrize(
    ("error", "state", "words"),
    [
        (system(UNPUBLISHED.format("clips")), "absent", "alter publication supabase_realtime add table public.clips;"),
        (
            system(UNPUBLISHED.format("ambara_daemons")),
            "absent",
            "alter publication supabase_realtime add table public.ambara_daemons;",
        ),
        (
            system("Please check Realtime is enabled, in words of a later server"),
            "absent",
            "alter publication supabase_realtime add table public.clips, public.ambara_daemons;",
        ),
        (system(UNPARSED), "absent", "invalid column"),
        (system('Error parsing `filter` params: ["x"]'), "absent", "Error parsing"),
        (system("Token has expired 0 seconds ago", "system"), "absent", "SUPABASE_SERVICE_ROLE_KEY"),
        (system(":signature_error", "system"), "absent", "SUPABASE_SERVICE_ROLE_KEY"),
        (system("Too many messages per second", "system"), "deaf", "Too many messages per second"),
        (system('{:error, "Too many database timeouts"}'), "deaf", "Too many database timeouts"),
        (refused("InvalidJWTToken: Token has expired 100 seconds ago"), "absent", "SUPABASE_SERVICE_ROLE_KEY"),
        (refused("MalformedJWT: The token provided is not a valid JWT"), "absent", "SUPABASE_SERVICE_ROLE_KEY"),
        (refused("ChannelRateLimitReached: Too many channels"), "deaf", "ChannelRateLimitReached"),
        (refused('UnknownErrorOnChannel: %{token: "SECRET"}'), "deaf", "UnknownErrorOnChannel"),
        (Exception("mismatch between server and client bindings"), "deaf", "without a reason"),
        (ConnectionClosedError(Close(1012, ""), None), "connecting", "1012"),
        (ConnectionClosedError(None, None), "connecting", "no close frame"),
    ],
)
def test_an_error_is_said_in_a_sentence_with_its_remedy(error: Exception, state: str, words: str) -> None:
    loss = of_status("CHANNEL_ERROR", error)
    assert loss.state.value == state
    assert words in loss.reason
    assert "SECRET" not in loss.reason


@pytest.mark.parametrize(
    ("error", "state", "words"),
    [
        (answer(401, b'{"error":"Token has expired"}'), "absent", "(Token has expired)"),
        (answer(401, b"<html>"), "absent", "(HTTP 401)"),
        (answer(403, b"[]"), "absent", "(HTTP 403)"),
        (answer(404), "absent", "There is no Realtime at SUPABASE_URL"),
        (answer(429), "connecting", "HTTP 429"),
        (answer(500), "connecting", "HTTP 500"),
        (ConnectionRefusedError(), "connecting", "ConnectionRefusedError"),
        (TimeoutError(), "connecting", "TimeoutError"),
    ],
)
def test_a_handshake_that_fails_is_a_refusal_only_where_a_person_has_to_act(
    error: Exception, state: str, words: str
) -> None:
    loss = of_handshake(error)
    assert loss.state.value == state
    assert words in loss.reason


async def _ring(_event: Event) -> None: ...


class _Ringer:
    async def __call__(self, event: Event) -> None: ...


@pytest.mark.parametrize("ring", [_ring, partial(_ring), _Ringer()])
async def test_a_ring_that_nobody_would_await_is_refused(ring: Callable[[Event], None]) -> None:
    with pytest.raises(TypeError, match="plain function"):
        Doorbell(ring)


async def test_the_first_press_rings_at_once_and_the_rest_once_after_the_pause() -> None:
    rings: list[Event] = []
    again = asyncio.Event()

    def ring(event: Event) -> None:
        rings.append(event)
        if len(rings) == 3:
            again.set()

    bell = Doorbell(ring, pause_s=0.05)
    for _ in range(1000):
        bell.press(ClipsChanged())
    bell.press(SweepDue())
    assert rings == [ClipsChanged(), SweepDue()]
    async with asyncio.timeout(GUARD_S):
        await again.wait()
    await asyncio.sleep(0.2)
    assert rings == [ClipsChanged(), SweepDue(), ClipsChanged()]


async def test_the_frame_of_a_beat_may_come_before_the_answer_to_the_write() -> None:
    proven = asyncio.Event()

    async def beat() -> int:
        canary.hear(7)
        return 7

    canary = Canary(beat, every_s=60, timeout_s=0.2)
    async with asyncio.timeout(GUARD_S), asyncio.TaskGroup() as tasks:
        singing = tasks.create_task(canary.sing(proven.set))
        await proven.wait()
        singing.cancel()


async def test_an_earlier_beat_proves_nothing() -> None:
    async def beat() -> int:
        canary.hear(6)
        return 7

    canary = Canary(beat, every_s=60, timeout_s=0.1)
    loss = await canary.sing(lambda: pytest.fail("proven"))
    assert loss.state is FeedState.DEAF


async def test_a_beat_that_hangs_is_one_that_could_not_be_written() -> None:
    beats = 0
    third = asyncio.Event()

    async def beat() -> int:
        nonlocal beats
        beats += 1
        if beats == 3:
            third.set()
        await asyncio.sleep(3600)
        return 1

    canary = Canary(beat, every_s=0.01, timeout_s=0.05)
    with capture_logs() as lines:
        async with asyncio.timeout(GUARD_S), asyncio.TaskGroup() as tasks:
            singing = tasks.create_task(canary.sing(lambda: pytest.fail("proven")))
            await third.wait()
            singing.cancel()
    assert len(lines) == 1


@pytest.mark.parametrize("url", ["ftp://project.example", "http://", "http://[::1"])
async def test_not_even_an_unforeseen_error_ends_the_feed_or_tells_the_key(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def beat() -> int:
        return 1

    settings = FeedSettings(url=url, key="sb_secret_abcdefghij", worker="w", backoff_max_s=0.01)
    feed = Feed(settings, lambda _event: None, beat)
    with capture_logs() as lines, caplog.at_level(logging.DEBUG):
        async with asyncio.timeout(GUARD_S), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(feed.run())
            while feed.generation < 3:  # noqa: ASYNC110 - a plain attribute
                await asyncio.sleep(0.01)
            running.cancel()
    assert feed.state is FeedState.CONNECTING
    assert settings.key not in f"{lines} {caplog.text} {feed.reason} {settings!r}"


def test_the_pause_is_random_bounded_and_survives_days_of_failures() -> None:
    assert max(pause(0, 30.0) for _ in range(200)) <= 1.0
    long = [pause(10_000, 30.0) for _ in range(2000)]
    assert max(long) <= 30.0
    assert min(long) < 1.0
    assert max(long) > 29.0


@pytest.mark.parametrize("worker", ["", "a,beat=gt.0", "a b", "ä", "a\n"])
def test_a_worker_that_would_change_the_filter_is_refused(worker: str) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        FeedSettings(url="https://project.example", key="k", worker=worker)
