"""sd_notify against a real datagram socket."""

from __future__ import annotations

import os
import secrets
import socket
import time
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
    assert receiver.recv(4096) == b"STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC=90000000"


def test_signs_of_life_and_the_time_that_a_start_takes(manager: tuple[str, socket.socket]) -> None:
    address, receiver = manager
    notifier = Notifier(address, 60.0)
    notifier.starting(12.5)
    assert receiver.recv(4096) == b"EXTEND_TIMEOUT_USEC=12500000"
    notifier.alive()
    assert receiver.recv(4096) == b"WATCHDOG=1"
    notifier.status("live v3, 0 pending")
    assert receiver.recv(4096) == b"STATUS=live v3, 0 pending"
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    first, _, when = receiver.recv(4096).decode().partition("\nMONOTONIC_USEC=")
    assert first == "RELOADING=1"
    assert before <= int(when) <= time.monotonic_ns() // 1000


@pytest.mark.parametrize(
    ("usec", "pid", "watched"),
    [
        ("60000000", "", 60.0),
        ("60000000", "self", 60.0),
        ("60000000", "1", None),  # it watches a wrapper script, not this process
        ("0", "", None),
        ("a minute", "", None),
        ("", "", None),
    ],
)
def test_the_watchdog_of_the_environment(
    usec: str, pid: str, watched: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WATCHDOG_USEC": usec, "WATCHDOG_PID": str(os.getpid()) if pid == "self" else pid}.items():
        if value:
            monkeypatch.setenv(name, value)
        else:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    assert Notifier.from_environment().watchdog_s == watched
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert Notifier.from_environment().watchdog_s is None


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
