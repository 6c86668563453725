"""The one URL: checks API keys as Supabase's gateway does, streams to Lite, and carries the Realtime bridge.

Runs as a process of its own (`python -m daemon.local.gateway`), started by gateway_server.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import jwt
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from daemon.credentials import ROLE
from daemon.local.gateway_server import SETTINGS_VARIABLE, GatewaySettings
from daemon.local.realtime import BridgeSettings, RealtimeBridge, uvicorn_options

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

_HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
# What Supabase serves without an API key: stored objects guard themselves, links from e-mails carry their own token.
_KEYLESS = ("/storage/v1/", "/auth/v1/verify", "/auth/v1/callback", "/auth/v1/authorize", "/auth/v1/.well-known/")


class Gateway:
    """The proxy's routes; `api` is the client to Lite."""

    def __init__(self, settings: GatewaySettings, api: httpx.AsyncClient) -> None:
        self._secret = settings.jwt_secret
        self._api = api

    def routes(self) -> list[Route]:
        """Health and everything that Lite serves."""
        proxied = [
            Route(f"/{part}/v1/{{rest:path}}", self.forward, methods=METHODS) for part in ("rest", "storage", "auth")
        ]
        return [Route("/healthz", self.health), *proxied]

    async def health(self, _request: Request) -> Response:
        """200 while the REST and Storage server answers, else 503."""
        try:
            answer = await self._api.get("/auth/v1/health")
        except httpx.TransportError:
            return _api_down()
        return JSONResponse({"status": "ok"}) if answer.is_success else _api_down()

    async def forward(self, request: Request) -> Response:
        """Check the key, then pass request and response through without holding either in memory."""
        key = request.headers.get("apikey") or request.query_params.get("apikey")
        if request.method != "OPTIONS" and not request.url.path.startswith(_KEYLESS):
            if not key:
                return _unauthorized(
                    "No API key found in request", "No `apikey` request header or url param was found."
                )
            if not self._valid(key):
                return _unauthorized("Invalid API key", "Double check your Supabase `anon` or `service_role` API key.")
        upstream = self._api.build_request(
            request.method,
            httpx.URL(raw_path=_target(request)),
            headers=_request_headers(request.headers, key),
            content=request.stream() if _has_body(request.headers) else None,
        )
        try:
            answer = await self._api.send(upstream, stream=True)
        except httpx.TransportError:
            return _api_down()
        response = StreamingResponse(
            answer.aiter_raw(), status_code=answer.status_code, background=BackgroundTask(answer.aclose)
        )
        response.raw_headers = [
            (name.lower(), value) for name, value in answer.headers.raw if name.lower().decode() not in _HOP_BY_HOP
        ]
        return response

    def _valid(self, key: str) -> bool:
        """A token of the daemon's own role is no key of the project: no Supabase gateway knows it."""
        try:
            claims = jwt.decode(key, self._secret, algorithms=["HS256"], options={"verify_aud": False})
        except jwt.InvalidTokenError:
            return False
        return claims.get("role") not in (None, ROLE)


def build(settings: GatewaySettings) -> Starlette:
    """The ASGI application: proxy, health and the bridge."""
    # Node closes an idle connection after five seconds; a shorter life here never races it.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=50, keepalive_expiry=2)
    api = httpx.AsyncClient(
        base_url=settings.api_url,
        limits=limits,
        timeout=httpx.Timeout(120, connect=5),
        headers={"accept-encoding": "identity"},
        trust_env=False,
    )
    bridge = RealtimeBridge(BridgeSettings(db_url=settings.db_url, jwt_secret=settings.jwt_secret))
    return Starlette(routes=[*bridge.routes(), *Gateway(settings, api).routes()], lifespan=_lifespan(api, bridge))


def _lifespan(
    api: httpx.AsyncClient, bridge: RealtimeBridge
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with api:
            await bridge.start()
            try:
                yield
            finally:
                await bridge.close()

    return lifespan


def _request_headers(headers: Mapping[str, str], key: str | None) -> dict[str, str]:
    passed = {name: value for name, value in headers.items() if name not in _HOP_BY_HOP and name != "host"}
    if key and "authorization" not in passed:
        passed["authorization"] = f"Bearer {key}"
    return passed


def _has_body(headers: Mapping[str, str]) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _target(request: Request) -> bytes:
    """Path and query as they were written."""
    path: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    return path + b"?" + query if query else path


def _unauthorized(message: str, hint: str) -> Response:
    return JSONResponse({"message": message, "hint": hint}, status_code=401)


def _api_down() -> Response:
    return JSONResponse({"message": "The REST and Storage server behind the gateway does not answer."}, status_code=503)


def main() -> None:
    """Serve until SIGTERM."""
    settings = GatewaySettings(**json.loads(os.environ[SETTINGS_VARIABLE]))
    uvicorn.run(
        build(settings),
        host="127.0.0.1",
        port=settings.port,
        log_level="warning",  # below that uvicorn writes the address of every socket, and the key with it
        access_log=False,
        timeout_graceful_shutdown=2,
        timeout_keep_alive=30,
        **uvicorn_options(),
    )


if __name__ == "__main__":
    main()
