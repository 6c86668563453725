"""Which key the feed shows where."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import ServerConnection, serve

from daemon.feed import Feed, FeedSettings


@pytest.mark.parametrize(("apikey", "shown"), [("the-public-key", "the-public-key"), (None, "the-token")])
async def test_the_gateway_sees_one_key_and_realtime_the_other(apikey: str | None, shown: str) -> None:
    """The public key in the address, the token in the join: or one key in both."""
    seen: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

    async def listen(socket: ServerConnection) -> None:
        assert socket.request is not None
        in_address = parse_qs(urlsplit(socket.request.path).query)["apikey"][0]
        async for frame in socket:
            message = json.loads(frame)
            if message["event"] == "phx_join" and not seen.done():
                seen.set_result((in_address, message["payload"]["access_token"]))

    async with serve(listen, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = FeedSettings(url=f"http://127.0.0.1:{port}", key="the-token", worker="w", apikey=apikey)

        async def beat() -> int:
            return 1

        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            feed = tasks.create_task(Feed(settings, lambda _: None, beat).run())
            assert await seen == (shown, "the-token")
            feed.cancel()
