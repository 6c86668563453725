"""Serves the page from the daemon's own loop. Whatever becomes of it, drafting goes on."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn
from starlette.types import ASGIApp

from daemon.sections import StatusSettings

log = structlog.get_logger(__name__)

MOST_CONNECTIONS = 64
GOODBYE_S = 1


class _Server(uvicorn.Server):
    """Leaves the process's signals alone: they are the daemon's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


async def serve(app: ASGIApp, settings: StatusSettings) -> None:
    """Serve until cancelled. A port that cannot be had is said once, and there is no page."""
    listening = _listen(settings)
    if listening is None:
        return
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=GOODBYE_S,
    )
    server = _Server(config)
    log.info("page", url=f"http://{_shown(settings.host)}:{listening.getsockname()[1]}")
    try:
        await server.serve(sockets=[listening])
    except Exception:  # a page is a convenience: it never ends the daemon
        log.exception("the status page ended")
    finally:
        for each in getattr(server, "servers", ()):
            each.close()
        for connection in list(server.server_state.connections):
            connection.shutdown()
        listening.close()


def _listen(settings: StatusSettings) -> socket.socket | None:
    host, port = settings.host, settings.port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=MOST_CONNECTIONS)
    except OSError as error:
        number = error.errno or 0
        why = (os.strerror(number) if number > 0 else error.strerror or "no such address").lower()
        log.warning(
            "no status page",
            error=f"{_shown(host)}:{port} cannot be served ({why}): set another port under [status], or 0 for any.",
        )
        return None
    listening.setblocking(False)
    return listening


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
