"""A machine without any network but the way to the project: a network namespace with a loopback, and one relay.

Nothing else can be reached from within, names cannot be asked for, and whoever tries is told so at once.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

_PR_SET_PDEATHSIG, _SIOCSIFFLAGS, _IFF_UP = 1, 0x8914, 1
_CHUNK = 1 << 16


def possible() -> bool:
    """Whether this machine lets its users have network namespaces of their own."""
    try:
        return subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@asynccontextmanager
async def way_out(folder: Path, port: int) -> AsyncIterator[Sequence[str]]:
    """Carry what comes out of the namespace to `port` of this host. Yields what to put before the command to run there.

    Within, the project is at the same address as outside.
    """
    gate = folder / "way-out"

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _join((reader, writer), await asyncio.open_connection("127.0.0.1", port))

    server = await asyncio.start_unix_server(carry, gate)
    try:
        yield ["unshare", "-rn", sys.executable, "-P", __file__, str(gate), str(port)]
    finally:
        server.close()


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _join(one: Ends, other: Ends) -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    with suppress(OSError, asyncio.CancelledError):  # the loop's end is the connection's
        await asyncio.gather(pour(one[0], other[1]), pour(other[0], one[1]))
    for _, writer in (one, other):
        writer.close()


def _main(gate: str, port: int, command: Sequence[str]) -> None:
    """Within: bring the loopback up, leave a relay behind, and become the command."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP))
    listener = socket.create_server(("127.0.0.1", port))
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        listener.set_inheritable(True)
        # Anew, because what is in the command's environment is not for the relay.
        os.execve(sys.executable, [sys.executable, "-P", __file__, gate, "relay", str(listener.fileno())], {})
    listener.close()
    os.execv(command[0], list(command))


async def _relay(listener: socket.socket, gate: str) -> None:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _join((reader, writer), await asyncio.open_unix_connection(gate))

    await (await asyncio.start_server(carry, sock=listener)).serve_forever()


if __name__ == "__main__":
    if sys.argv[2] == "relay":
        asyncio.run(_relay(socket.socket(fileno=int(sys.argv[3])), sys.argv[1]))
    else:
        _main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
