"""REST, Storage and Auth: Supabase's own small server in Node, on a loopback port behind the gateway."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import httpx

from daemon.local.node import node, packages
from daemon.local.process import Nursery, stop_child, wait_ready
from daemon.local.sockets import free_port

_CONFIG = """\
project_id = "ambara"
[api]
port = {port}
max_rows = 1000
[db]
driver = "postgres"
url = {db_url}
[auth]
enabled = true
jwt_secret = {jwt_secret}
[storage]
enabled = true
file_size_limit = "50MiB"
"""


class Lite:
    """The API server of one stack. It reads the database's functions when it starts and never again."""

    def __init__(self, folder: Path, *, nursery: Nursery) -> None:
        self._home = folder / "lite"
        self._nursery = nursery
        self._child: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.log = folder / "logs" / "lite.log"

    @property
    def url(self) -> str:
        """Where the gateway finds it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The server, if it was started and not stopped."""
        return self._child

    def start(self, *, db_url: str, jwt_secret: str) -> None:
        """Start it; `wait` says when it serves."""
        config = self._home / "supabase" / "config.toml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.touch(mode=0o600)
        quoted = {"db_url": json.dumps(db_url), "jwt_secret": json.dumps(jwt_secret)}
        config.write_text(_CONFIG.format(port=self.port, **quoted), encoding="utf-8")
        program = packages() / "node_modules" / "@supabase" / "lite" / "dist" / "cli" / "index.js"
        command = [str(node()), str(program), "start", "--no-admin", "--host", "127.0.0.1"]
        switches = {
            "EXPERIMENTAL_STORAGE": "1",
            "LITE_TELEMETRY": "0",
            "DO_NOT_TRACK": "1",
            "LITE_NON_INTERACTIVE": "1",
        }
        env = {"PATH": os.defpath, "HOME": str(self._home), "NO_COLOR": "1", **switches}
        self._child = self._nursery.spawn(command, log=self.log, env=env, cwd=self._home)

    def wait(self, service_role_key: str) -> None:
        """Wait until it knows the tables; TemporaryError if it does not come up.

        It reads the catalog for the first request that needs it. If the database were away at that moment, it would
        say that there is no such table, where later it says that something is wrong.
        """

        def knows_tables() -> bool:
            headers = {"apikey": service_role_key, "Authorization": f"Bearer {service_role_key}"}
            try:
                answer = httpx.get(f"{self.url}/rest/v1/clips?limit=0", headers=headers, timeout=10, trust_env=False)
            except httpx.TransportError:
                return False
            return answer.is_success

        if self._child is not None:
            wait_ready(self._child, "The REST and Storage server", self.log, knows_tables, timeout_s=60)

    def stop(self) -> None:
        """Stop it; requests in flight are cut."""
        child, self._child = self._child, None
        if child is not None:
            stop_child(child, (signal.SIGTERM, 3.0))
