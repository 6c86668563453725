"""How the daemon talks to Supabase: one HTTP client with limits of its own.

The clients that the library makes by itself follow redirects and hand the ``apiKey`` header to the other origin, and
wait 120 s for an answer; so this one is given to it.
"""

from __future__ import annotations

import httpx
from supabase import AsyncClient, AsyncClientOptions, create_async_client

from daemon.errors import ConfigurationError, TemporaryError

__all__ = ["TIMEOUT", "AsyncClient", "connect", "http_client"]

TIMEOUT = httpx.Timeout(20.0, connect=5.0)
"""Seconds. A statement of the daemon takes milliseconds; what takes longer than this has lost its answer."""


def http_client(connections: int = 16) -> httpx.AsyncClient:
    """An HTTP client that never leaves the origin it was pointed at. HTTP/1.1: a lost HTTP/2 connection takes every
    request in flight with it (httpx#3324)."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.AsyncClient(
        follow_redirects=False, timeout=TIMEOUT, limits=limits, http2=False, event_hooks={"response": [_judge]}
    )


async def _judge(response: httpx.Response) -> None:
    """Say plainly what the library would bury: its errors carry no HTTP status."""
    if response.status_code == httpx.codes.UNAUTHORIZED:
        raise ConfigurationError(
            "Supabase refuses the key. Set SUPABASE_SERVICE_ROLE_KEY to the project's service_role (secret) key.",
            reason="key-refused",
        )
    if response.is_redirect:
        raise TemporaryError("SUPABASE_URL answers with a redirect, which is not followed.", reason="redirected")


async def connect(url: str, key: str, http: httpx.AsyncClient) -> AsyncClient:
    """A Supabase client for the service role. It keeps no session and never refreshes one."""
    options = AsyncClientOptions(auto_refresh_token=False, persist_session=False, httpx_client=http)
    return await create_async_client(url, key, options)
