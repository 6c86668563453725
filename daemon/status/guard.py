"""Who may ask the page, and what its answers let a browser do.

A page elsewhere can make a name of its own mean 127.0.0.1 and then read what is served there as its own: so the name
that was asked for has to be one of ours. Nothing is written here, so everything but GET and HEAD is refused.
"""

from __future__ import annotations

from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_OURS = frozenset({"localhost", "127.0.0.1", "::1"})


class Guard:
    """Stands before `app`, which is served at `host`."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._names = _OURS | {host.lower()}
        self._anywhere = _unspecified(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI wants it."""
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if scope["method"] not in ("GET", "HEAD"):
            refusal = PlainTextResponse("This page can only be read.\n", 405, {"Allow": "GET, HEAD"})
            await refusal(scope, receive, guarded)
        elif not self._is_ours(Headers(scope=scope).getlist("host")):
            refusal = PlainTextResponse("This page is not served under that name: open it as localhost.\n", 421)
            await refusal(scope, receive, guarded)
        else:
            await self._app(scope, receive, guarded)

    def _is_ours(self, hosts: list[str]) -> bool:
        if len(hosts) != 1:
            return False
        name = host_name(hosts[0])
        return name in self._names or (self._anywhere and _is_address(name))


def host_name(header: str) -> str:
    """The name in a Host header, without the port and the brackets of an IPv6 address."""
    header = header.strip().lower()
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


def _is_address(name: str) -> bool:
    """A name cannot be turned into another address where it is one itself."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _unspecified(host: str) -> bool:
    return _is_address(host) and ip_address(host).is_unspecified
