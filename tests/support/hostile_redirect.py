"""A project's address that sends its callers elsewhere, and the elsewhere, which notes whoever comes."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "upgrade", "content-length"}


@dataclass
class Elsewhere:
    """Another origin. Whoever connects is noted, even if it says nothing."""

    url: str = ""
    heard: list[str] = field(default_factory=list)


@dataclass
class Signpost:
    """A project behind an address that sends away the requests of the services in `away`; the others get through."""

    url: str
    service_role_key: str
    away: dict[str, int] = field(default_factory=dict)
    """Service (rest, storage, realtime) -> a redirect's status, or an error's, which repeats what was asked."""
    sent_away: list[str] = field(default_factory=list)
    """Method and path of each request that was."""
    _tunnels: list[socket.socket] = field(default_factory=list)

    def cut(self) -> None:
        """End the websockets that are open, so that their clients come again."""
        for end in self._tunnels:
            _hang_up(end)
        self._tunnels.clear()


@contextmanager
def elsewhere() -> Iterator[Elsewhere]:
    """An origin that greets every connection with a page."""
    origin = Elsewhere()
    with socket.create_server(("127.0.0.1", 0)) as server:
        origin.url = f"http://127.0.0.1:{server.getsockname()[1]}"

        def greet() -> None:
            while True:
                try:
                    visitor, _ = server.accept()
                except OSError:  # closed
                    return
                with visitor:
                    visitor.settimeout(2)
                    try:
                        origin.heard.append(visitor.recv(8192).decode(errors="replace"))
                        visitor.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]")
                    except OSError:
                        origin.heard.append("")

        thread = threading.Thread(target=greet)
        thread.start()
        try:
            yield origin
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def signpost(project: Any, to: Elsewhere) -> Iterator[Signpost]:
    """An address before `project` that can send callers `to` another one."""
    made = Signpost("", project.service_role_key)
    upstream = urlsplit(project.url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            service = self.path.split("/")[1]
            if (status := made.away.get(service, 0)) >= 400:
                self.echo(status)
            elif status:
                made.sent_away.append(f"{self.command} {self.path.partition('?')[0]}")
                self.send_response(status)
                self.send_header("Location", f"{to.url.replace('http', self.scheme(), 1)}{self.path}")
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif self.headers.get("Upgrade"):
                self.tunnel()
            else:
                self.forward(body)

        do_GET = do_POST = do_HEAD = do_PATCH = do_PUT = do_DELETE = answer  # noqa: N815 - the base class's names

        def echo(self, status: int) -> None:
            """An error as a careless gateway gives it: with the whole request, key and all, in its text."""
            made.sent_away.append(f"{self.command} {self.path.partition('?')[0]}")
            told = f"{self.requestline}\n{self.headers}"
            body = json.dumps({"code": "XX000", "message": told, "details": told, "hint": told, "error": told}).encode()
            self.send_response(status, "Sorry")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Request", self.headers.get("apikey") or self.path)
            self.end_headers()
            self.wfile.write(body)

        def scheme(self) -> str:
            return "ws" if self.headers.get("Upgrade") else "http"

        def forward(self, body: bytes) -> None:
            server = HTTPConnection(upstream.hostname or "", upstream.port, timeout=30)
            sent = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            server.request(self.command, self.path, body or None, sent)
            answer = server.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
            server.close()

        def tunnel(self) -> None:
            """A websocket: from here on only bytes."""
            self.close_connection = True
            with socket.create_connection((upstream.hostname or "", upstream.port or 80)) as server:
                head = f"{self.requestline}\r\n" + "".join(
                    f"{name}: {value}\r\n" for name, value in self.headers.items()
                )
                server.sendall(head.encode() + b"\r\n")
                made._tunnels.append(server)
                back = threading.Thread(target=_pour, args=(server, self.connection))
                back.start()
                _pour(self.connection, server)
                back.join()

        def log_message(self, *_: object) -> None:
            """Keep still."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A caller that was killed."""

    server = Server(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _pour(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while content := source.recv(1 << 16):
            sink.sendall(content)
    _hang_up(source)
    _hang_up(sink)


def _hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
