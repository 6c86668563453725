"""Tells the service manager how the daemon fares: sd_notify(3) and sd_watchdog_enabled(3) in a few lines."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Self


class Notifier:
    """Sends to the datagram socket at `address`; without one, to nobody. A message that gets lost is no error.

    `watchdog_s`: seconds of silence after which the service manager ends the daemon; None if it does not watch.
    """

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        # A leading @ stands for the zero octet of Linux's abstract namespace.
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self.watchdog_s = watchdog_s if self._address else None

    @classmethod
    def from_environment(cls) -> Self:
        """The one that systemd names in ``NOTIFY_SOCKET``, with its watchdog if that is meant for this process."""
        return cls(os.environ.get("NOTIFY_SOCKET"), _watchdog_s(os.environ))

    def starting(self, within_s: float) -> None:
        """The daemon is not ready yet, and will be heard of again within so many seconds."""
        self._send(_extend(within_s))

    def ready(self, status: str) -> None:
        """The daemon is at work."""
        self._send("READY=1", _status(status))

    def status(self, text: str) -> None:
        """What the daemon is doing, in a line that ``systemctl status`` shows."""
        self._send(_status(text))

    def reloading(self) -> None:
        """The settings are being read again; `ready` ends that."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def alive(self) -> None:
        """The watchdog may rest for another `watchdog_s`."""
        self._send("WATCHDOG=1")

    def stopping(self, within_s: float) -> None:
        """The daemon is shutting down, and wants so many seconds for it."""
        self._send("STOPPING=1", _status("stopping"), _extend(within_s))

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        # A manager that is away or slow must not keep the daemon from working.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), self._address)


def _watchdog_s(env: Mapping[str, str]) -> float | None:
    if env.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # it watches the process that started this one
    try:
        usec = int(env.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    return usec / 1e6 if usec > 0 else None


def _extend(within_s: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={round(within_s * 1e6)}"


def _status(text: str) -> str:
    """One assignment on one line: a line break would begin another one."""
    return "STATUS=" + " ".join(text.split())
