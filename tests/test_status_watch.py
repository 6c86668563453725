"""Who looks, and how often the database is asked for it; and the server beside the daemon."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing

import httpx
import pytest
import seen
from starlette.responses import PlainTextResponse
from structlog.testing import capture_logs
from witness import until

from daemon.errors import TemporaryError
from daemon.sections import StatusSettings
from daemon.status.server import serve
from daemon.status.truth import Truth, Watch

AWAY = TemporaryError("Supabase does not answer.", reason="database-away")


class Reads:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.go = asyncio.Event()
        self.go.set()
        self.error: Exception | None = None

    async def __call__(self) -> Truth:
        self.begun += 1
        await self.go.wait()
        if self.error:
            raise self.error
        truth = seen.look().truth
        assert truth is not None
        return truth


async def test_nobody_looks_and_nothing_is_asked() -> None:
    reads = Reads()
    async with asyncio.TaskGroup() as tasks:
        Watch(reads, tasks)
    assert reads.begun == 0


async def test_all_who_look_share_one_read() -> None:
    reads = Reads()
    reads.go.clear()
    async with asyncio.TaskGroup() as tasks:
        watch = Watch(reads, tasks)
        looks = [tasks.create_task(watch.look()) for _ in range(20)]
        await asyncio.sleep(0)
        reads.go.set()
        assert all(look.truth and not look.trouble for look in await asyncio.gather(*looks))
        assert (await watch.look()).truth
    assert reads.begun == 1


@pytest.mark.parametrize("error", [AWAY, KeyError("queue")])
async def test_a_database_that_fails_leaves_the_last_truth(error: Exception) -> None:
    reads = Reads()
    async with asyncio.TaskGroup() as tasks:
        watch = Watch(reads, tasks, every_s=0.0, share=0.0)
        assert not (await watch.look()).trouble
        reads.error = error
        look = await watch.look()
        assert look.truth
        assert look.trouble
        assert look.age_s > 0
        reads.error = None
        assert not (await watch.look()).trouble


async def test_a_database_that_hangs_keeps_nobody_waiting() -> None:
    reads = Reads()
    reads.go.clear()
    async with asyncio.TaskGroup() as tasks:
        watch = Watch(reads, tasks, patience_s=0.0)
        look = await watch.look()
        assert (look.truth, look.trouble) == (None, "The database has not answered yet.")
        reads.go.set()


async def serving(settings: StatusSettings) -> tuple[asyncio.Task[None], str]:
    with capture_logs() as logs:
        task = asyncio.get_running_loop().create_task(serve(PlainTextResponse("here"), settings))
        await until(lambda: logs, "a line in the log", pause_s=0.01)
    return task, str(logs[0].get("url") or logs[0].get("error"))


async def test_any_free_port_and_the_end() -> None:
    task, url = await serving(StatusSettings(port=0))
    async with httpx.AsyncClient(trust_env=False) as http:
        while True:
            try:
                answer = await http.get(url)
                break
            except httpx.ConnectError:
                await asyncio.sleep(0.01)
        assert answer.text == "here"
        assert "server" not in answer.headers
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(httpx.TransportError):
            await http.get(url)


async def test_a_port_in_use_is_one_sentence_and_no_error() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        task, said = await serving(StatusSettings(port=port))
        await task
    assert said == (
        f"127.0.0.1:{port} cannot be served (address already in use): set another port under [status], or 0 for any."
    )


@pytest.mark.parametrize("host", ["no-such-host.invalid", "203.0.113.7"])
async def test_an_address_that_is_none_of_ours(host: str) -> None:
    task, said = await serving(StatusSettings(host=host, port=0))
    await task
    assert "cannot be served" in said
