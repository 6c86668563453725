"""A TLS terminator before a Supabase: an authority of its own, and a certificate that can be changed at any moment.

What a gateway does when its certificate is renewed: connections that are there stay, new ones see the new certificate.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import trustme

from daemon.local.sockets import free_port

HOST = "127.0.0.1"
_CHUNK = 1 << 16


class TlsFront:
    """Listens on a port of its own before `upstream`; all methods may be called from any thread."""

    def __init__(self, upstream: str, folder: Path) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self.port = free_port()
        self.url = f"https://{HOST}:{self.port}"
        self._authority, self._stranger = trustme.CA(), trustme.CA()
        self.authority_file = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(str(self.authority_file))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ends: set[asyncio.StreamWriter] = set()
        self.refused = 0
        """Handshakes that came to nothing: the client did not trust."""
        self.accepted = 0
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _loop, _context: None)  # of handshakes that fail
        self._thread = threading.Thread(target=self._loop.run_forever, name="TLS front", daemon=True)
        self._server: asyncio.Server | None = None
        self.renewed()

    @property
    def env(self) -> dict[str, str]:
        """What lets a process trust the authority."""
        return {"SSL_CERT_FILE": str(self.authority_file)}

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def renewed(self) -> None:
        """Another certificate of the same authority, which verifies."""
        self._present(self._authority.issue_cert(HOST))

    def expired(self) -> None:
        """One that was valid until an hour ago."""
        now = datetime.now(UTC)
        dates = {"not_before": now - timedelta(days=90), "not_after": now - timedelta(hours=1)}
        self._present(self._authority.issue_cert(HOST, **dates))

    def misnamed(self) -> None:
        """One that is made out to another host."""
        self._present(self._authority.issue_cert("elsewhere.example"))

    def unknown(self) -> None:
        """One of an authority that nobody trusts."""
        self._present(self._stranger.issue_cert(HOST))

    def cut(self) -> int:
        """End the connections that are there, as a terminator's restart does. Returns how many."""
        return int(self._run(self._cut()))

    def _present(self, leaf: trustme.LeafCert) -> None:
        """New connections see this one: a context is read when a handshake begins."""
        leaf.configure_cert(self._context)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port)

    async def _end(self) -> None:
        if self._server:
            self._server.close()
        tasks = [task for task in asyncio.all_tasks(self._loop) if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _cut(self) -> int:
        ends = list(self._ends)
        for end in ends:
            end.transport.abort()
        return len(ends)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.add(writer)
        forth: asyncio.StreamWriter | None = None
        try:
            try:
                await writer.start_tls(self._context, ssl_handshake_timeout=10)
            except OSError:
                self.refused += 1
                return
            back, forth = await asyncio.open_connection(*self._upstream)
            self.accepted += 1
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pass(reader, forth))
                tasks.create_task(_pass(back, writer))
        except* OSError:
            pass
        finally:
            self._ends.discard(writer)
            for end in filter(None, (writer, forth)):
                end.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one side ends: then so does the other, for a request without its answer is of no use."""
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    raise ConnectionError


Change = Callable[[TlsFront], None]
UNTRUSTED: dict[str, tuple[Change, str]] = {
    "expired": (TlsFront.expired, "certificate has expired"),
    "of an unknown authority": (TlsFront.unknown, "unable to get local issuer certificate"),
    "for another name": (TlsFront.misnamed, "certificate is not valid for '127.0.0.1'"),
}
"""Name -> what is presented, and OpenSSL's words for it."""
