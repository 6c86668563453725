"""The page without a server, and what is read in its answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from pathlib import Path

import httpx
import seen

from daemon.learning.registry import Registry
from daemon.redaction import Redactor
from daemon.status.here import Here
from daemon.status.page import Page
from daemon.status.truth import Look
from handlers.policy import Policy

SECRET = "sb_secret_q7/w+x=Zz_9"


class Given:
    """Something to look at that needs no database."""

    def __init__(self, look: Look) -> None:
        self._look: Look | None = look

    def show(self, look: Look | None) -> None:
        """From now on; None breaks the page."""
        self._look = look

    async def look(self) -> Look:
        assert self._look, "broken on purpose"
        return self._look


@asynccontextmanager
async def asked(
    look: Look | None = None, here: Callable[[], Here] = seen.here, *, state: Path = Path("/nowhere"), host: str = ""
) -> AsyncIterator[httpx.AsyncClient]:
    page = Page(Given(look or seen.look()), Registry(state), here, Policy, Redactor([SECRET]))  # type: ignore[arg-type]
    transport = httpx.ASGITransport(page.app(host or "127.0.0.1"))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8765") as http:
        yield http


class Reader(HTMLParser):
    """Elements with their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} ends what it did not begin"

    def handle_data(self, data: str) -> None:
        self.text += data
