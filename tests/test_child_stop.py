"""Whoever asks a child to stop may ask again: what it is saving is saved to its end."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from child_bench import Bench, the_child, until

from daemon.learning.ports import ChildStopped

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds its child through /proc")

SAVES = """
tell(1)
while not stop():
    time.sleep(0.01)
(out / "half").touch()
for _ in range(100):
    time.sleep(0.01)
(out / "half").rename(out / "whole")
"""


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_request_does_not_end_it_while_it_saves(bench: Bench, again: signal.Signals) -> None:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bench.stub(SAVES))
        await until(lambda: bench.steps() == [1])
        pid = the_child()
        os.kill(pid, signal.SIGTERM)
        await until((bench.folder / "half").exists)
        for _ in range(3):
            os.kill(pid, again)
            await asyncio.sleep(0.05)
    assert task.result() == ChildStopped()
    # One that was killed at it would count as stopped, too: it might not have begun.
    assert (bench.folder / "whole").exists()


async def test_a_cancellation_waits_until_it_has_saved(bench: Bench) -> None:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bench.stub(SAVES))
        await until(lambda: bench.steps() == [1])
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    assert (bench.folder / "whole").exists()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)
