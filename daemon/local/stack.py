"""The embedded Supabase as one object: PostgreSQL, Lite and the gateway, started together and stopped together."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from daemon.errors import ConfigurationError
from daemon.local import origin
from daemon.local.folder import clear, keep_previous_logs, temporary_folder, wipe
from daemon.local.gateway_server import GatewayServer
from daemon.local.keys import Keys, mint
from daemon.local.lite import Lite
from daemon.local.node import packages
from daemon.local.postgres import Postgres
from daemon.local.process import Identity, Nursery
from daemon.local.record import Record, erase, exclusive
from daemon.local.sockets import port_is_free

Report = Callable[[str], None]


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
        self.gateway = GatewayServer(folder, port=port, nursery=self._nursery)
        password = self.keys.db_password
        self.postgres = Postgres(folder, password=password, throw_away=ephemeral, nursery=self._nursery)
        self.lite = Lite(folder, nursery=self._nursery)
        self._temporary = False

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

        `ephemeral` data are not synced to disk, and deleted by `down`. `minimal` leaves out the editor's
        optional tables and columns. `port` 0 takes a free one. Raises AlreadyRunning, ConfigurationError, or
        TemporaryError with a log's last line.
        """
        temporary = folder is None
        folder = temporary_folder() if folder is None else folder.resolve()
        with exclusive(folder):
            clear(folder, ephemeral=ephemeral)
            if port and not port_is_free(port):
                raise ConfigurationError(
                    f"Port {port} of 127.0.0.1 is taken; choose another one, or 0 for any free one."
                )
            stack = cls(folder, port=port, ephemeral=ephemeral, report=report)
            try:
                stack._start_all(minimal=minimal)
            except BaseException:
                stack.down()
                raise
        stack._temporary = temporary
        return stack

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @property
    def url(self) -> str:
        """What a client takes for `supabase_url`."""
        return self.gateway.url

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
        origin.empty(self.db_url, self.url, self.service_role_key)

    def ensure(self) -> None:
        """Start whatever does not run, be it killed or stopped."""
        if not _runs(self.postgres.process):
            self._report("PostgreSQL does not run; starting it.")
            self.start_postgres()
        if not _runs(self.lite.process):
            self._report("The REST and Storage server does not run; starting it.")
            self.reload_api()
        if not _runs(self.gateway.process):
            self._report("The gateway does not run; starting it.")
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
        self.lite.wait(self.service_role_key)

    def stop_gateway(self) -> None:
        """Take the whole URL away: REST, Storage and every Realtime socket."""
        self.gateway.stop()

    def start_gateway(self) -> None:
        """Bring the URL back, on the same port."""
        self._spawn_gateway()
        self.gateway.wait()

    def down(self) -> None:
        """Stop everything, the gateway first; ephemeral data are deleted. Safe to call twice."""
        self.stop_gateway()
        self.lite.stop()
        self.postgres.stop()
        self._nursery.close()
        if self._ephemeral:
            wipe(self.folder)
        erase(self.folder)
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _start_all(self, *, minimal: bool) -> None:
        packages(self._report)
        clock = _Stopwatch(self._report)
        keep_previous_logs(self.folder / "logs")
        self.start_postgres()
        origin.prepare(self.db_url, minimal=minimal)
        clock.say("PostgreSQL with the editor's tables and Ambara's migrations")
        self._spawn_gateway()
        self.reload_api()
        with psycopg.connect(self.db_url) as connection:
            connection.execute(origin.storage_sql().encode())
        clock.say("REST and Storage")
        self.gateway.wait()
        clock.say(f"Gateway and Realtime on {self.url}")

    def _spawn_gateway(self) -> None:
        self.gateway.start(api_url=self.lite.url, db_url=self.db_url, jwt_secret=self.jwt_secret)
        self._remember()

    def _remember(self) -> None:
        children = (self.postgres.process, self.lite.process, self.gateway.process)
        alive = tuple(known for child in children if child and (known := Identity.of(child.pid)))
        owner = Identity.of(os.getpid())
        assert owner is not None
        Record(self.url, self.db_url, self._ephemeral, owner, alive).write(self.folder)


def _runs(child: subprocess.Popen[bytes] | None) -> bool:
    return child is not None and child.poll() is None


class _Stopwatch:
    def __init__(self, report: Report) -> None:
        self._report = report
        self._last = time.monotonic()

    def say(self, what: str) -> None:
        now = time.monotonic()
        self._report(f"{what}: {now - self._last:.1f} s")
        self._last = now
