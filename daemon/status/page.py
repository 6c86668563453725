"""The page's addresses: what people open, what Prometheus scrapes, what a supervisor asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from daemon.learning.ports import Version
from daemon.learning.registry import Registry
from daemon.status.guard import Guard
from daemon.status.here import Here
from daemon.status.metrics import CONTENT_TYPE, metrics
from daemon.status.truth import Redact, Watch, redacted
from daemon.status.version_view import version_page
from daemon.status.view import age, page
from handlers.policy import Policy

_FOLDER = Path(__file__).parent
_STATIC = {"style.css": "text/css", "refresh.js": "text/javascript", "icon.svg": "image/svg+xml"}


class Page:
    """Answers requests. `here` tells of this process, `policy` by which thresholds it decides now."""

    def __init__(
        self, watch: Watch, registry: Registry, here: Callable[[], Here], policy: Callable[[], Policy], redact: Redact
    ) -> None:
        self._watch = watch
        self._registry = registry
        self._here = here
        self._policy = policy
        self._redact = redact
        self._templates = templates()

    def app(self, host: str) -> ASGIApp:
        """What a server serves at `host`."""
        routes = [
            Route("/", self._front),
            Route("/versions/{number:int}", self._version),
            Route("/metrics", self._metrics),
            Route("/healthz", self._health),
            Route("/readyz", self._ready),
            Route("/{name:path}", self._static),
        ]
        return Guard(Starlette(routes=routes), host)

    async def _front(self, _: Request) -> Response:
        return self._html("page.html", page(await self._watch.look(), self._here(), self._policy(), datetime.now(UTC)))

    async def _version(self, request: Request) -> Response:
        look = await self._watch.look()
        number = request.path_params["number"]
        version = next((each for each in look.truth.versions if each.id == number), None) if look.truth else None
        if version is None:
            return self._html("missing.html", {"number": number, "age": age(look)}, 404)
        transcripts = request.query_params.get("transcripts") == "1"
        told = await asyncio.to_thread(self._told, version, transcripts=transcripts)
        return self._html("version.html", told | {"age": age(look)})

    def _told(self, version: Version, *, transcripts: bool) -> dict[str, Any]:
        """Reads and sums thousands of clips: nothing for the event loop."""
        found = self._registry.read_evidence(version.id)
        evidence = redacted(found, self._redact) if found else None
        return version_page(version, evidence, self._policy().promotion, transcripts=transcripts)

    async def _metrics(self, _: Request) -> Response:
        return Response(metrics(await self._watch.look(), self._here()), headers={"Content-Type": CONTENT_TYPE})

    async def _health(self, _: Request) -> Response:
        hung = self._here().hung
        return PlainTextResponse(f"{hung} hangs\n" if hung else "alive\n", 503 if hung else 200)

    async def _ready(self, _: Request) -> Response:
        here = self._here()
        return PlainTextResponse(
            "ready\n" if here.ready else f"{here.doing or 'starting'}\n", 200 if here.ready else 503
        )

    async def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _STATIC:
            return PlainTextResponse("There is no such page.\n", 404)
        content = await asyncio.to_thread((_FOLDER / "static" / name).read_bytes)
        return Response(content, media_type=_STATIC[name])

    def _html(self, name: str, told: dict[str, Any], status: int = 200) -> Response:
        return HTMLResponse(self._templates.get_template(name).render(told), status)


def templates() -> Environment:
    """The templates. Whatever they show is escaped."""
    return Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
