"""How the daemon talks to Supabase: one HTTP client with limits of its own.

The clients that the library makes by itself follow redirects and hand the ``apiKey`` header to the other origin, and
wait 120 s for an answer; so this one is given to it.
"""

from __future__ import annotations

import httpx
from supabase import AsyncClient, AsyncClientOptions, create_async_client

from daemon.certificates import trusted
from daemon.errors import ConfigurationError, TemporaryError
from daemon.sections import SupabaseSettings

__all__ = ["TIMEOUT", "AsyncClient", "client_for", "connect", "http_client"]

TIMEOUT = httpx.Timeout(10.0, connect=5.0)
"""Seconds. A statement of the daemon takes milliseconds, and Supabase ends any after 8 s; what takes longer than this
has lost its answer."""
PATIENT = frozenset(
    {
        "ambara_begin_training",
        "ambara_training",
        "ambara_status",
        "ambara_mend_queue",
        "ambara_examine",
        "ambara_history",
    }
)
"""Functions that read everything. The database gives each of them 55 s, and a request has 60 s on Supabase."""
PATIENCE_S = 60.0
KEPT_S = 20.0
"""Seconds that an idle connection is kept: longer than the pause between two beats, so that a clip that comes after
hours finds one open, and shorter than what stands between is known to forget connections after."""


def http_client(connections: int = 16) -> httpx.AsyncClient:
    """An HTTP client that never leaves the origin it was pointed at. HTTP/1.1: a lost HTTP/2 connection takes every
    request in flight with it (httpx#3324).

    Raises `ConfigurationError` where the authorities that the environment names cannot be read.
    """
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=KEPT_S)
    return httpx.AsyncClient(
        verify=trusted(),
        follow_redirects=False,
        timeout=TIMEOUT,
        limits=limits,
        http2=False,
        event_hooks={"request": [_wait], "response": [_judge]},
    )


async def _wait(request: httpx.Request) -> None:
    """Give what reads everything its time."""
    if request.url.path.rpartition("/rpc/")[2] in PATIENT:
        request.extensions["timeout"] = {**request.extensions["timeout"], "read": PATIENCE_S}


async def _judge(response: httpx.Response) -> None:
    """Say plainly what the library would bury: its errors carry no HTTP status."""
    if response.status_code == httpx.codes.UNAUTHORIZED:
        raise ConfigurationError(
            "Supabase refuses the key. Set SUPABASE_SERVICE_ROLE_KEY to the project's service_role (secret) key. If it "
            "is a token of ambara_daemon, see that it has not expired and that SUPABASE_ANON_KEY is this project's.",
            reason="key-refused",
        )
    if response.is_redirect:
        raise TemporaryError("SUPABASE_URL answers with a redirect, which is not followed.", reason="redirected")


async def connect(url: str, key: str, http: httpx.AsyncClient, *, apikey: str | None = None) -> AsyncClient:
    """A Supabase client with the rights of `key`. It keeps no session and never refreshes one.

    `apikey`: what the project's gateway wants to see, where that is not `key` itself.
    """
    options = AsyncClientOptions(auto_refresh_token=False, persist_session=False, httpx_client=http)
    options.headers["Authorization"] = f"Bearer {key}"
    return await create_async_client(url, apikey or key, options)


async def client_for(supabase: SupabaseSettings, http: httpx.AsyncClient) -> AsyncClient:
    """`connect` with the keys of the settings."""
    apikey = supabase.apikey.get_secret_value()
    return await connect(supabase.url, supabase.key.get_secret_value(), http, apikey=apikey)
