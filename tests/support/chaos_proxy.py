"""A TCP proxy before a Supabase, or before its database, with a network's faults on command, for each service apart.

Everything of Supabase hangs on one port. So a connection belongs to the service that its first request names, and
that service's present `Fault` is what happens to it. The bytes themselves are never changed.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from daemon.local.sockets import free_port

SERVICES = ("realtime", "rest", "storage")
DATABASE = "database"
"""The service of connections that speak PostgreSQL's protocol."""
_REQUEST = re.compile(rb"^(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) /(\w+)/v1(/\S*)")
_CHUNK = 1 << 16
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that lets a close send RST."""


class Fault(Enum):
    """What happens to a service's connections."""

    NONE = auto()
    BLACK_HOLE = auto()
    """Connections stay, new ones are accepted, and no byte goes either way."""
    STALL = auto()
    """No byte goes either way, and none is lost: all of them go on their way when it ends."""
    REFUSE = auto()
    """Every connection, old or new, is reset."""


@dataclass(eq=False)
class _Link:
    """A client's connection and the one behind it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    service: str = ""
    doomed: bool = False
    """Its next answer is lost."""
    sent: int = 0


@dataclass
class _Wishes:
    """What is asked of one service."""

    fault: Fault = Fault.NONE
    delay_s: float = 0.0
    cut_after: int | None = None
    """Bytes of an answer after which the connection is reset."""
    to_lose: int = 0
    """Answers that are still to be lost, each of `lose_share` of the calls of a function."""
    lose_share: float = 0.0
    lose_of: str = ""
    """Only of functions whose name ends so."""
    dice: random.Random = field(default_factory=random.Random)
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    """Not stalled."""

    def __post_init__(self) -> None:
        self.flowing.set()


class ChaosProxy:
    """Listens on a port of its own before `upstream`; all methods may be called from any thread."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._service = DATABASE if parts.scheme == "postgresql" else ""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.requests: list[tuple[float, str, str]] = []
        """When (monotonic clock), of which service, which path: of every request that came in, answered or not."""
        self.lost = 0
        """Answers that were lost."""
        self._links: set[_Link] = set()
        self._wishes = {name: _Wishes() for name in (*SERVICES, DATABASE, "")}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos proxy", daemon=True)
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.deafen()
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def listen(self) -> None:
        """Take connections (again)."""
        self._run(self._listen())

    def deafen(self) -> None:
        """Refuse connections as a host without a server does, and reset those that are there."""
        self._run(self._deafen())

    def put(self, fault: Fault, *services: str) -> None:
        """Let `services` (none named: all) suffer `fault` from now on; `Fault.NONE` heals."""
        self._run(self._put(fault, services or SERVICES))

    def slow(self, delay_s: float, *services: str) -> None:
        """Every answer's pieces come `delay_s` seconds later."""
        for name in services or SERVICES:
            self._wishes[name].delay_s = delay_s

    def cut_answers(self, after: int | None, *services: str) -> None:
        """Reset each connection once it has answered so many bytes; None ends that."""
        for name in services or SERVICES:
            self._wishes[name].cut_after = after

    def lose_answers(self, count: int, share: float, dice: random.Random, *, of: str = "") -> None:
        """Let calls of functions (`of`: of this one) through, and reset the connection of so many of them, `share` of
        all by these dice, before the answer: the caller cannot know that it was carried out."""
        wishes = self._wishes["rest"]
        wishes.dice, wishes.lose_share, wishes.lose_of, wishes.to_lose = dice, share, of, count

    def still_to_lose(self) -> int:
        """How many answers of `lose_answers` are still to come."""
        return self._wishes["rest"].to_lose

    def reset(self, *services: str) -> int:
        """Reset the connections that are there now. Returns how many."""
        return self._run(self._reset(services or SERVICES))

    def half_close(self, *services: str) -> int:
        """End the server's side of the connections that are there now; the client may go on sending."""
        return self._run(self._half_close(services or SERVICES))

    def connections(self, service: str) -> int:
        """How many are open."""
        return sum(link.service == service for link in list(self._links))

    def count(self, service: str, since: float = 0.0, path: str = "") -> int:
        """Requests since a moment of the monotonic clock whose path ends so."""
        return sum(at >= since and name == service and where.endswith(path) for at, name, where in self.requests)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _deafen(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self._each(self._links, _abort)

    async def _end(self) -> None:
        tasks = [task for task in asyncio.all_tasks(self._loop) if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _put(self, fault: Fault, services: tuple[str, ...]) -> None:
        for name in services:
            self._wishes[name].fault = fault
            (self._wishes[name].flowing.clear if fault is Fault.STALL else self._wishes[name].flowing.set)()
        if fault is Fault.REFUSE:
            await self._reset(services)

    async def _reset(self, services: tuple[str, ...]) -> int:
        return self._each([link for link in self._links if link.service in services], _abort)

    async def _half_close(self, services: tuple[str, ...]) -> int:
        return self._each([link for link in self._links if link.service in services], _finish)

    @staticmethod
    def _each(links: Any, act: Callable[[_Link], None]) -> int:
        chosen = list(links)
        for link in chosen:
            act(link)
        return len(chosen)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, forth = await asyncio.open_connection(*self._upstream)
        except OSError:
            _reset_socket(writer)
            return
        link = _Link(writer, forth, self._service)
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._there(link, reader))
                tasks.create_task(self._back(link, back))
        except* (OSError, ConnectionError):
            pass
        finally:
            self._links.discard(link)
            for end in (writer, forth):
                end.close()

    async def _there(self, link: _Link, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_CHUNK):
            if asked := _REQUEST.match(data):
                self._note(link, asked[1].decode(), asked[2].decode().partition("?")[0])
            wishes = self._wishes[link.service]
            if wishes.fault is Fault.REFUSE:
                _abort(link)
                return
            if wishes.fault is Fault.BLACK_HOLE:
                continue
            await self._stalled(link)
            link.server.write(data)
            await link.server.drain()
        if link.server.can_write_eof():
            link.server.write_eof()

    async def _stalled(self, link: _Link) -> None:
        await self._wishes[link.service].flowing.wait()

    def _note(self, link: _Link, service: str, path: str) -> None:
        link.service = service if service in SERVICES else ""
        link.sent = 0
        self.requests.append((time.monotonic(), link.service, path))
        wishes = self._wishes[link.service]
        called = path.startswith("/rpc/") and path.endswith(wishes.lose_of)
        if wishes.to_lose > 0 and called and wishes.dice.random() < wishes.lose_share:
            wishes.to_lose -= 1
            link.doomed = True

    async def _back(self, link: _Link, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_CHUNK):
            wishes = self._wishes[link.service]
            if wishes.fault is Fault.BLACK_HOLE:
                continue
            if link.doomed:
                self.lost += 1
                _abort(link)
                return
            await self._stalled(link)
            if wishes.delay_s:
                await asyncio.sleep(wishes.delay_s)
            link.sent += len(data)
            if wishes.cut_after is not None and link.sent >= wishes.cut_after:
                link.client.write(data[: len(data) - (link.sent - wishes.cut_after)])
                await link.client.drain()
                _abort(link)
                return
            link.client.write(data)
            await link.client.drain()
        _finish(link)


def _finish(link: _Link) -> None:
    if link.client.can_write_eof() and not link.client.is_closing():
        link.client.write_eof()


def _abort(link: _Link) -> None:
    _reset_socket(link.client)
    link.server.transport.abort()


def _reset_socket(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None and not writer.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
