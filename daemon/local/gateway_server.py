"""The gateway's process, as its stack sees it: started, stopped, on one port for good."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from daemon.local.process import Nursery, stop_child, wait_ready
from daemon.local.sockets import free_port

SETTINGS_VARIABLE = "AMBARA_GATEWAY"
"""The settings come as JSON in this environment variable: a command line could be read by other users."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What the gateway must know; `port` is the stack's public one."""

    port: int
    api_url: str
    db_url: str
    jwt_secret: str


class GatewayServer:
    """The one URL of a stack. While it is stopped, clients are refused; then it is there again, on the same port."""

    def __init__(self, folder: Path, *, port: int, nursery: Nursery) -> None:
        self._folder = folder
        self._nursery = nursery
        self._child: subprocess.Popen[bytes] | None = None
        self.port = port or free_port()
        self.log = folder / "logs" / "gateway.log"

    @property
    def url(self) -> str:
        """What a client takes for `supabase_url`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The server, if it was started and not stopped."""
        return self._child

    def start(self, *, api_url: str, db_url: str, jwt_secret: str) -> None:
        """Start it; `wait` says when it serves."""
        settings = GatewaySettings(self.port, api_url, db_url, jwt_secret)
        env = child_environment() | {SETTINGS_VARIABLE: json.dumps(asdict(settings))}
        command = [sys.executable, "-m", "daemon.local.gateway"]
        self._child = self._nursery.spawn(command, log=self.log, env=env, cwd=self._folder)

    def wait(self) -> None:
        """Wait until it answers, be it that another part does not; TemporaryError if it does not come up."""
        if self._child is not None:
            wait_ready(self._child, "The gateway", self.log, self._answers, timeout_s=60)

    def stop(self) -> None:
        """Stop it: REST, Storage and every Realtime socket are gone."""
        child, self._child = self._child, None
        if child is not None:
            stop_child(child, (signal.SIGTERM, 5.0))

    def _answers(self) -> bool:
        try:
            httpx.get(f"{self.url}/healthz", timeout=10, trust_env=False)
        except httpx.TransportError:
            return False
        return True


def child_environment() -> dict[str, str]:
    """This process's environment, so that a child imports the same code from whatever folder it starts in."""
    root = str(Path(__file__).resolve().parents[2])
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
