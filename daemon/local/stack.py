"""The embedded Supabase as one object: PostgreSQL, Lite and the gateway, started together and stopped together."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psycopg

from daemon.errors import ConfigurationError
from daemon.local import origin
from daemon.local.gateway import SETTINGS_VARIABLE, GatewaySettings
from daemon.local.keys import Keys, mint
from daemon.local.lite import Lite
from daemon.local.postgres import Postgres, drop_data
from daemon.local.process import Identity, Nursery, free_port, port_is_free, stop_child, wait_ready
from daemon.local.record import Record, erase, exclusive

Report = Callable[[str], None]


class AlreadyRunning(ConfigurationError):  # noqa: N818 - a state of affairs, for `up` not even an error
    """Another process runs a stack in this folder."""


class LocalStack:
    """A Supabase in a folder. `start` makes one; every method blocks until what it says is true.

    The processes are children of this one and end with it, even if it is killed.
    """

    def __init__(self, folder: Path, *, port: int, ephemeral: bool, report: Report) -> None:
        self.folder = folder
        self.keys = Keys.load_or_create(folder / "keys.json")
        self._ephemeral = ephemeral
        self._report = report
        self._nursery = Nursery()
        self._port = port or free_port()
        password = self.keys.db_password
        self.postgres = Postgres(folder, password=password, throw_away=ephemeral, nursery=self._nursery)
        self.lite = Lite(folder, nursery=self._nursery)
        self._gateway: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(
        cls,
        folder: Path | None = None,
        *,
        port: int = 0,
        ephemeral: bool = True,
        minimal: bool = False,
        report: Report = lambda _line: None,
    ) -> Self:
        """Start everything in `folder` (None: a temporary one) and wait until it serves.

        `ephemeral` data are made anew, not synced to disk, and deleted by `down`. `minimal` leaves out the editor's
        optional tables and columns. `port` 0 takes a free one. Raises AlreadyRunning, ConfigurationError, or
        TemporaryError with a log's last line.
        """
        folder = (folder or Path(tempfile.mkdtemp(prefix="ambara-"))).resolve()
        with exclusive(folder):
            _clear(folder, ephemeral=ephemeral)
            if port and not port_is_free(port):
                raise ConfigurationError(f"Port {port} of 127.0.0.1 is taken; choose another one, or 0 for any free one.")
            stack = cls(folder, port=port, ephemeral=ephemeral, report=report)
            try:
                stack._start_all(minimal=minimal)
            except BaseException:
                stack.down()
                raise
        return stack

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.down()

    @property
    def url(self) -> str:
        """What a client takes for `supabase_url`."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def db_url(self) -> str:
        """Connection string of the database's superuser."""
        return self.postgres.url

    @property
    def anon_key(self) -> str:
        """The API key of somebody who is not signed in."""
        return self.keys.anon_key

    @property
    def service_role_key(self) -> str:
        """The API key that row level security does not hold back."""
        return self.keys.service_role_key

    @property
    def jwt_secret(self) -> str:
        """The secret (HS256) that signs every token."""
        return self.keys.jwt_secret

    def mint(self, role: str, **claims: object) -> str:
        """Sign a token for `role`, valid for an hour unless `claims` has another `exp`."""
        return mint(self.jwt_secret, role, **claims)

    def truncate(self) -> None:
        """Empty every table and the bucket; schema, functions and processes stay."""
        empty(self.db_url, self.url, self.service_role_key)

    def ensure(self) -> None:
        """Start again whatever ended without having been asked to."""
        if _ended(self.postgres.process):
            self._report("PostgreSQL ended unexpectedly; starting it again.")
            self.start_postgres()
        if _ended(self.lite.process):
            self._report("The REST and Storage server ended unexpectedly; starting it again.")
            self.reload_api()
        if _ended(self._gateway):
            self._report("The gateway ended unexpectedly; starting it again.")
            self.start_gateway()

    def start_postgres(self) -> None:
        """Start the database again, on the same port."""
        self.postgres.start()
        self._remember()

    def stop_postgres(self, mode: str = "fast") -> None:
        """Take the database away: `fast` in order, `immediate` as a crash."""
        self.postgres.stop(mode)

    def restart_postgres(self, mode: str = "fast") -> None:
        """`stop_postgres`, then `start_postgres`."""
        self.stop_postgres(mode)
        self.start_postgres()

    def reload_api(self) -> None:
        """Restart Lite, which knows only the tables and functions that were there when it started."""
        self.lite.stop()
        self.lite.start(db_url=self.db_url, jwt_secret=self.jwt_secret)
        self._remember()
        self.lite.wait()

    def stop_gateway(self) -> None:
        """Take the whole URL away: REST, Storage and every Realtime socket."""
        child, self._gateway = self._gateway, None
        if child is not None:
            stop_child(child, (signal.SIGTERM, 5.0))

    def start_gateway(self) -> None:
        """Bring the URL back, on the same port."""
        self._spawn_gateway()
        self._wait_gateway()

    def down(self) -> None:
        """Stop everything, the gateway first; ephemeral data are deleted. Safe to call twice."""
        self.stop_gateway()
        self.lite.stop()
        self.postgres.stop()
        self._nursery.close()
        erase(self.folder)
        if self._ephemeral:
            wipe(self.folder)

    def _start_all(self, *, minimal: bool) -> None:
        clock = _Stopwatch(self._report)
        _keep_previous_logs(self.folder / "logs")
        self.start_postgres()
        with psycopg.connect(self.db_url, autocommit=True) as connection:
            origin.prepare(connection, minimal=minimal)
        clock.say("PostgreSQL with the editor's tables and Ambara's migrations")
        self._spawn_gateway()
        self.reload_api()
        with psycopg.connect(self.db_url) as connection:
            connection.execute(origin.storage_sql().encode())
        clock.say("REST and Storage")
        self._wait_gateway()
        clock.say(f"Gateway and Realtime on {self.url}")

    def _spawn_gateway(self) -> None:
        settings = GatewaySettings(self._port, self.lite.url, self.db_url, self.jwt_secret)
        env = child_environment() | {SETTINGS_VARIABLE: json.dumps(asdict(settings))}
        command = [sys.executable, "-m", "daemon.local.gateway"]
        self._gateway = self._nursery.spawn(command, log=self._gateway_log, env=env, cwd=self.folder)
        self._remember()

    def _wait_gateway(self) -> None:
        if self._gateway is not None:
            wait_ready(self._gateway, "The gateway", self._gateway_log, self._listening, timeout_s=60)

    def _listening(self) -> bool:
        try:
            httpx.get(f"{self.url}/healthz", timeout=10, trust_env=False)
        except httpx.TransportError:
            return False
        return True

    @property
    def _gateway_log(self) -> Path:
        return self.folder / "logs" / "gateway.log"

    def _remember(self) -> None:
        children = (self.postgres.process, self.lite.process, self._gateway)
        alive = tuple(known for child in children if child and (known := Identity.of(child.pid)))
        owner = Identity.of(os.getpid())
        assert owner is not None
        Record(self.url, self.db_url, self._ephemeral, owner, alive).write(self.folder)


def empty(db_url: str, url: str, service_role_key: str) -> None:
    """Empty the bucket `clips` and every table of the schema `public`."""
    with psycopg.connect(db_url, autocommit=True, options="-c lock_timeout=20s") as connection:
        if connection.execute("select 1 from storage.objects limit 1").fetchone():
            headers = {"apikey": service_role_key, "Authorization": f"Bearer {service_role_key}"}
            httpx.post(f"{url}/storage/v1/bucket/clips/empty", headers=headers, timeout=60).raise_for_status()
        tables = connection.execute(
            "select string_agg(format('%I.%I', schemaname, tablename), ', ') from pg_tables where schemaname = 'public'"
        ).fetchone()
        if tables and tables[0]:
            connection.execute(f"truncate {tables[0]} restart identity".encode())


def wipe(folder: Path) -> None:
    """Delete the data of a stopped stack: tables and objects. Its keys and logs stay."""
    drop_data(folder)
    shutil.rmtree(folder / "lite", ignore_errors=True)


def child_environment() -> dict[str, str]:
    """This process's environment, so that a child imports the same code from whatever folder it starts in."""
    root = str(Path(__file__).resolve().parents[2])
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}


def _clear(folder: Path, *, ephemeral: bool) -> None:
    record = Record.read(folder)
    if record is not None and record.running():
        raise AlreadyRunning(f"A stack already runs in {folder}; stop it with: ambara local down --dir {folder}")
    if record is not None:
        record.sweep(folder)
    if ephemeral or (record is not None and record.ephemeral):
        wipe(folder)


def _keep_previous_logs(logs: Path) -> None:
    logs.mkdir(exist_ok=True)
    for log in logs.glob("*.log"):
        log.replace(log.with_suffix(".log.old"))


def _ended(child: subprocess.Popen[bytes] | None) -> bool:
    return child is not None and child.poll() is not None


class _Stopwatch:
    def __init__(self, report: Report) -> None:
        self._report = report
        self._last = time.monotonic()

    def say(self, what: str) -> None:
        now = time.monotonic()
        self._report(f"{what}: {now - self._last:.1f} s")
        self._last = now
