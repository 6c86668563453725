"""Keys that nobody else has, handed over as a service manager does, and the places where they must not be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import httpx
from daemon_process import DaemonProcess
from hostile_secrets import leaks

from daemon.local.resident import page_of
from daemon.local.stack import LocalStack

TALKATIVE = {"level": "debug"}
"""The log in which most is said."""
PLACES = ("/", "/?transcripts=1", "/versions/1", "/metrics", "/healthz", "/readyz")
"""Addresses of a daemon's page."""


@dataclass(frozen=True, slots=True)
class Project:
    """An address and a key."""

    url: str
    service_role_key: str


def another_key(stack: LocalStack, name: str) -> str:
    """A key that works, and whose text no other has."""
    return stack.mint("service_role", exp=4_000_000_000, name=name)


def in_a_file(folder: Path, key: str) -> dict[str, str]:
    """The environment that names the key by a file, as a service manager hands it over."""
    file = folder / "credential"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{key}\n")
    return {"SUPABASE_SERVICE_ROLE_KEY": "", "SUPABASE_SERVICE_ROLE_KEY_FILE": str(file)}


def pages(folder: Path) -> dict[str, str]:
    """What every address says of the page of the daemon whose log is `folder`/daemon.log; nothing where it has none."""
    url = page_of(folder)
    if url is None:
        return {}
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
        return {place: http.get(place).text for place in PLACES}


def found(key: str, daemon: DaemonProcess, folder: Path) -> list[str]:
    """Where the key is, of all places that are searched; the credential's own file is not."""
    pids = [daemon.child.pid] if daemon.running else []
    places = [path for path in folder.iterdir() if path.name != "credential"]
    texts = {"output": daemon.output, **(pages(folder) if daemon.running else {})}
    return leaks(key, texts=texts, paths=places, pids=pids, environs=pids)
