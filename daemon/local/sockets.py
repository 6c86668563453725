"""Free ports of the loopback address."""

from __future__ import annotations

import random
import socket

from daemon.errors import TemporaryError

_PORTS = range(20_000, 32_000)


def free_port(preferred: int = 0) -> int:
    """A port of 127.0.0.1 that nobody listens on now: `preferred` if it is free, else any.

    Below the kernel's range for outgoing connections: there a client that waits for a stopped server could be
    given that very port and connect to itself.
    """
    for port in (preferred, *random.sample(_PORTS, 200)):
        if port and port_is_free(port):
            return port
    raise TemporaryError("No free port on 127.0.0.1 between 20000 and 32000.", reason="local-stack")


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
