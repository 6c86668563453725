"""Tells the service manager how the daemon fares: sd_notify(3) in a few lines."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Self


class Notifier:
    """Sends to the datagram socket at `address`; without one, to nobody. A message that gets lost is no error."""

    def __init__(self, address: str | None) -> None:
        # A leading @ stands for the zero octet of Linux's abstract namespace.
        self._address = "\0" + address[1:] if address and address.startswith("@") else address

    @classmethod
    def from_environment(cls) -> Self:
        """The one that systemd names in ``NOTIFY_SOCKET``."""
        return cls(os.environ.get("NOTIFY_SOCKET"))

    def ready(self, status: str) -> None:
        """The daemon is at work."""
        self._send("READY=1", _status(status))

    def stopping(self, within_s: float) -> None:
        """The daemon is shutting down, and wants so many seconds for it."""
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(within_s * 1e6)}")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        # A manager that is away or slow must not keep the daemon from working.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), self._address)


def _status(text: str) -> str:
    """One assignment on one line: a line break would begin another one."""
    return "STATUS=" + " ".join(text.split())
