"""The check of Realtime: a change of our own through the whole path, with the daemon's own feed."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from daemon.credentials import KEY_VARIABLE, ROLE, URL_VARIABLE
from daemon.doctor.finding import Fault, NotAsked
from daemon.doctor.patient import Patient
from daemon.doctor.project import SET_KEY, SET_URL
from daemon.errors import AmbaraError
from daemon.feed import Feed, FeedSettings, FeedState

LIMIT_S = 20.0
"""For all of it. A project that nobody listened to for a while takes some seconds to begin."""
RESTART = "docker restart realtime-dev.supabase-realtime   # hosted: Project Settings, General, Restart project"


async def round_trip(patient: Patient) -> str:
    """Change a row of our own and hear of it. Leaves no row behind."""
    supabase = patient.settings.supabase
    if not patient.settings.realtime.enabled:
        raise NotAsked("Realtime is off in the settings: the sweep finds new clips")
    settings = FeedSettings(
        url=supabase.url,
        key=supabase.key.get_secret_value(),
        apikey=supabase.apikey.get_secret_value(),
        worker=patient.store.worker,
        canary_timeout_s=LIMIT_S,
        join_timeout_s=LIMIT_S,
        backoff_max_s=2.0,
    )
    feed = Feed(settings, lambda _: None, lambda: patient.store.beat({"doctor": True}))
    began = time.monotonic()
    try:
        await _settle(feed)
    finally:
        with suppress(AmbaraError):
            await patient.store.leave()
    if feed.state is not FeedState.LIVE:
        raise Fault(feed.reason or f"no change came back within {LIMIT_S:.0f} s", _remedy(feed, patient))
    return f"a change came back after {time.monotonic() - began:.1f} s"


async def _settle(feed: Feed) -> None:
    """Let it run until it has proven itself, is refused, or the time is up."""
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(feed.run())
        with suppress(TimeoutError):
            async with asyncio.timeout(LIMIT_S):
                while feed.state is FeedState.CONNECTING:  # noqa: ASYNC110 - the state of a feed is a plain attribute
                    await asyncio.sleep(0.02)
        running.cancel()


def _remedy(feed: Feed, patient: Patient) -> str:
    """What the feed itself would run, if it says so."""
    _, told, sql = (feed.reason or "").partition(" Run: ")
    if told:
        return sql
    for variable, command in ((KEY_VARIABLE, SET_KEY), (URL_VARIABLE, SET_URL)):
        if variable in (feed.reason or ""):
            return command
    refused = feed.state is FeedState.ABSENT and patient.role == ROLE
    return "select public.ambara_admit();" if refused else RESTART
