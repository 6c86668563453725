"""The TCP connection under a websocket: what ASGI cannot say.

The real server dies without a close frame, counts websocket pings as signs of life, and stops answering them when it
is frozen. `WireProtocol` is uvicorn's own websocket protocol, with a handle on its transport in the ASGI scope.
"""

from __future__ import annotations

import time
from typing import Any

from starlette.types import Scope
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

_EXTENSION = "ambara.wire"


class Wire:
    """One client's TCP connection."""

    def __init__(self, protocol: WebSocketsSansIOProtocol) -> None:
        self._protocol = protocol
        self.last_received = time.monotonic()
        """Monotonic seconds at which the client last sent anything, websocket pings included."""

    def cut(self) -> None:
        """End TCP now; no close frame, what is buffered is lost."""
        self._protocol.transport.abort()

    def freeze(self) -> None:
        """Read nothing more, so that pings stay unanswered too."""
        self._protocol.transport.pause_reading()

    def thaw(self) -> None:
        if not self._protocol.read_paused:
            self._protocol.transport.resume_reading()


class WireProtocol(WebSocketsSansIOProtocol):
    """Uvicorn's protocol for websockets, which puts a `Wire` into the scope's extensions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._wire = Wire(self)

    def data_received(self, data: bytes) -> None:
        self._wire.last_received = time.monotonic()
        super().data_received(data)

    async def run_asgi(self) -> None:
        self.scope["extensions"][_EXTENSION] = self._wire  # type: ignore[assignment]
        await super().run_asgi()

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            # Otherwise uvicorn logs every refused handshake as a failure of the application.
            self.handshake_complete = True


def wire_of(scope: Scope) -> Wire:
    """Raises TypeError where the server was not started with `uvicorn_options`."""
    wire = scope.get("extensions", {}).get(_EXTENSION)
    if not isinstance(wire, Wire):
        raise TypeError("Start uvicorn with the options from daemon.local.realtime.uvicorn_options().")
    return wire


def uvicorn_options() -> dict[str, Any]:
    """Keyword arguments for `uvicorn.Config`, without which the bridge would not behave as the real server does.

    No pings from the server, no compression, frames up to 5,000,000 octets. Add `log_level="warning"`: below that
    uvicorn writes the URL of every websocket, and the key with it.
    """
    return {
        "ws": WireProtocol,
        "ws_ping_interval": None,
        "ws_ping_timeout": None,
        "ws_per_message_deflate": False,
        "ws_max_size": 5_000_000,
    }
