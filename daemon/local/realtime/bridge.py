"""The Realtime bridge: routes, handshake, and what holds the parts together."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from daemon.local.realtime import protocol, tokens
from daemon.local.realtime.faults import Fault, Faults
from daemon.local.realtime.poller import Poller
from daemon.local.realtime.registry import Registry
from daemon.local.realtime.session import Session
from daemon.local.realtime.settings import BridgeSettings
from daemon.local.realtime.wire import wire_of

_REFUSALS = {
    401: ("application/json; charset=utf-8", '{"error":"Token has expired"}'),
    500: ("text/html", "Internal Server Error"),
    503: ("text/plain", "Service Unavailable"),
}


class RealtimeBridge:
    """`postgres_changes` over Phoenix channels, as the real server delivers them: at most once, best effort.

    Mount `routes()` in a Starlette app, serve it by uvicorn with `uvicorn_options()`, call `start` and `close` from
    the app's lifespan, both in the same task.
    """

    def __init__(self, settings: BridgeSettings) -> None:
        self.settings = settings
        self.faults = Faults()
        self.registry = Registry()
        self.poller = Poller(settings, self.registry, self.faults)
        self._sessions: set[Session] = set()
        self._polling: asyncio.Task[None] | None = None
        self._tasks = asyncio.TaskGroup()
        self.faults.connect(self._obey)

    def routes(self) -> list[BaseRoute]:
        return [
            WebSocketRoute("/realtime/v1/websocket", self._connect),
            WebSocketRoute("/socket/websocket", self._connect),
            Route("/_local/realtime/faults", self._faults_route, methods=["GET", "POST"]),
        ]

    async def start(self) -> None:
        await self._tasks.__aenter__()
        self._polling = self._tasks.create_task(self.poller.run())

    async def close(self) -> None:
        """End every socket with 1012, as a server that is being restarted does, and give the slot back."""
        for session in tuple(self._sessions):
            session.close_soon(1012)
        if self._polling is not None:
            self._polling.cancel()
            await self._tasks.__aexit__(None, None, None)

    def counters(self) -> dict[str, int | bool]:
        counts = self.poller.counters
        return {
            "sockets": len(self._sessions),
            "channels": sum(len(session.channels) for session in self._sessions),
            "subscriptions": len(self.registry),
            "delivered": counts.frames_delivered,
            "dropped": counts.rows_dropped,
            "slot_active": self.poller.slot_active,
            "slots_created": counts.slots_created,
            "gave_up": counts.gave_up,
        }

    def _obey(self, fault: Fault) -> None:
        if fault.action == "deafen":
            self.poller.deafen()
        for session in tuple(self._sessions):
            match fault.action:
                case "close":
                    session.close_soon(fault.code)
                case "cut":
                    session.wire.cut()
                case "stale_close":
                    session.stale_close()
                case "expire_tokens":
                    session.expire_tokens()

    async def _connect(self, websocket: WebSocket) -> None:
        wire = wire_of(websocket.scope)
        await self.faults.over("freeze")
        refusal = self.faults.take("refuse")
        if refusal is not None:
            media_type, body = _REFUSALS[refusal.status]
            await websocket.send_denial_response(Response(body, refusal.status, media_type=media_type))
            return
        version = websocket.query_params.get("vsn", "1.0.0")
        if version not in protocol.VERSIONS:
            await websocket.send_denial_response(Response(status_code=403))
            return
        apikey = websocket.headers.get("x-api-key", websocket.query_params.get("apikey"))
        error = self._check(apikey)
        if error is not None or apikey is None:
            await asyncio.sleep(self.settings.handshake_error_delay_s)
            body = protocol.compact({"error": error})
            await websocket.send_denial_response(Response(body, 401, media_type="application/json; charset=utf-8"))
            return
        await websocket.accept()
        session = Session(self, websocket, wire, version=version, apikey=apikey)
        self._sessions.add(session)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)

    def _check(self, apikey: str | None) -> str | None:
        """Why the key does not open a socket; None where it does."""
        if apikey is None:
            return "API key is missing"
        try:
            tokens.check(apikey, self.settings.jwt_secret)
        except tokens.TokenError as error:
            return error.handshake
        return None

    async def _faults_route(self, request: Request) -> Response:
        """POST: `Faults.inject` with the JSON body. GET: counters and the faults under way. For service_role only."""
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        key = bearer or request.headers.get("apikey", "")
        role = None
        with suppress(tokens.TokenError):
            role = tokens.check(key, self.settings.jwt_secret).role
        if role != "service_role":
            return JSONResponse({"error": "Use the service_role key as a bearer token."}, 401)
        if request.method == "POST":
            try:
                body = json.loads(await request.body())
                self.faults.inject(body.pop("action"), **body)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                return JSONResponse({"error": f"The fault cannot be understood: {error}"}, 400)
        return JSONResponse({**self.counters(), "faults": self.faults.describe()})
