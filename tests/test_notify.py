"""sd_notify against a real datagram socket."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """The service manager's end, and the address as it stands in the environment."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@ambara-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        receiver.settimeout(5)
        yield address, receiver


def test_every_message_arrives_as_systemd_reads_it(
    manager: tuple[str, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, receiver = manager
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notifier = Notifier.from_environment()
    notifier.ready("live v3, 12 ready")
    assert receiver.recv(4096) == b"READY=1\nSTATUS=live v3, 12 ready"
    notifier.stopping(90.0)
    assert receiver.recv(4096) == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=90000000"


def test_a_line_break_in_a_status_is_no_second_assignment(manager: tuple[str, socket.socket]) -> None:
    address, receiver = manager
    Notifier(address).ready("one\nSTOPPING=1")
    assert receiver.recv(4096) == b"READY=1\nSTATUS=one STOPPING=1"


def test_nothing_happens_without_a_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier.from_environment().ready("at work")
    Notifier("").ready("at work")


def test_a_manager_that_is_gone_or_does_not_read_is_no_error(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    Notifier(address).ready("nobody there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        for _ in range(2000):
            Notifier(address).ready("x" * 500)
        assert receiver.recv(4096).startswith(b"READY=1\n")
