"""Several processes that train as one: how they are started, stopped and ended. Here none of them trains in earnest."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from child_bench import Bench, children, lives, open_files, the_child, train_job, until

from daemon.learning.ports import ChildDone, ChildFailed, ChildStopped

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at processes through /proc")

RANK = 'rank = int(os.environ["RANK"])\n'
WAITS = f"{RANK}tell(1)\n(out / f'{{rank}}').touch()\nwhile not stop(): time.sleep(0.01)"


@pytest.fixture(autouse=True)
async def nothing_is_left(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> AsyncIterator[None]:
    """After each test: no zombie, no process that still runs, no file where they met, no open file more than before."""
    monkeypatch.setenv("TMPDIR", str(bench.folder / "tmp"))
    (bench.folder / "tmp").mkdir()
    await (await asyncio.create_subprocess_exec("true")).wait()
    before, files = children(os.getpid()), open_files()
    yield
    await asyncio.sleep(0)
    assert children(os.getpid()) == before
    assert open_files() <= files
    await until(lambda: not [path for path in Path("/proc").glob("[0-9]*/cmdline") if _is_of(path, bench.folder)])


def _is_of(cmdline: Path, folder: Path) -> bool:
    try:
        return f"{folder}/".encode() in cmdline.read_bytes()
    except OSError:
        return False


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def left(bench: Bench) -> list[Path]:
    return list((bench.folder / "tmp").iterdir())


async def begun(bench: Bench, processes: int = 2) -> None:
    await until(lambda: all((bench.folder / str(rank)).exists() for rank in range(processes)))
    await until(lambda: bench.steps() == [1])


async def test_each_knows_its_place_and_the_first_speaks_for_all(bench: Bench) -> None:
    body = """
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GLOO_SOCKET_IFNAME")
(out / f"half-{rank}").write_text(" ".join(os.environ[name] for name in names))
(out / f"half-{rank}").rename(out / f"{rank}")
tell(10 + rank)
while not all((out / f"{other}").exists() for other in range(3)):
    time.sleep(0.01)
"""
    end = await bench.stub(RANK + body, processes=3)
    assert isinstance(end, ChildDone)
    assert bench.steps() == [10]
    assert bench.heard[0].keys() == {"network"}
    assert [(bench.folder / str(rank)).read_text() for rank in range(3)] == [f"{n} {n} 3 3 lo" for n in range(3)]
    assert left(bench) == []


@pytest.mark.parametrize(
    ("first", "second", "reason", "words"),
    [
        ("time.sleep(3600)", 'raise TrainingError("data", "Nothing to learn.")', "data", "Nothing to learn."),
        ("time.sleep(3600)", "os.kill(os.getpid(), signal.SIGKILL)", "killed", "memory"),
        # A connection to one that is gone breaks, and that is not the reason.
        ('time.sleep(0.3); raise RuntimeError("closed")', "os.kill(os.getpid(), signal.SIGKILL)", "killed", "memory"),
        ('raise RuntimeError("closed")', "time.sleep(0.3); raise MemoryError", "out-of-memory", "batch_size"),
        ("time.sleep(3600)", "os._exit(7)", "crashed", "7"),
        ('raise TrainingError("base", "No base.")', "time.sleep(3600)", "base", "No base."),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "time.sleep(3600)", "crashed", "SIGSEGV"),
    ],
)
async def test_the_end_of_one_is_the_end_of_all_and_has_its_reason(
    bench: Bench, first: str, second: str, reason: str, words: str
) -> None:
    end = await bench.stub(f"{RANK}if rank: {second}\nelse: {first}", processes=2)
    assert isinstance(end, ChildFailed)
    assert end.reason == reason
    assert words in end.message


async def test_the_end_of_the_first_is_the_end_of_all(bench: Bench) -> None:
    assert isinstance(await bench.stub(f"{RANK}if rank: time.sleep(3600)", processes=3), ChildDone)


async def test_when_the_memory_of_one_runs_out_all_begin_anew_with_less(bench: Bench) -> None:
    body = f"""{RANK}
from daemon.asr.training import TrainAgainError
if settings["batch_size"] > 1:
    if rank: raise TrainAgainError("out-of-memory", "Too much.", {{"batch_size": 1}})
    time.sleep(3600)
tell(settings["batch_size"])
"""
    assert isinstance(await bench.stub(body, processes=2), ChildDone)
    assert bench.steps() == [1]


async def test_a_request_to_stop_is_heard_by_the_first(bench: Bench) -> None:
    """Which tells the others; here they would wait for ever. A second request does not end it while it saves."""
    body = f"{WAITS}\n(out / 'half').touch()\ntime.sleep(1)\n(out / 'half').rename(out / 'whole')"
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bench.stub(body, processes=2))
        await begun(bench)
        os.kill(the_child(), signal.SIGTERM)
        await until((bench.folder / "half").exists)
        os.kill(the_child(), signal.SIGTERM)
    assert task.result() == ChildStopped()
    assert (bench.folder / "whole").exists()


async def test_a_request_that_comes_before_they_listen_is_heard(bench: Bench) -> None:
    program = bench.folder / "early.py"
    program.write_text(
        "import os, signal, sys\n"
        "from daemon.learning import child\n"
        "if 'RANK' in os.environ: os.kill(os.getppid(), signal.SIGTERM); signal.pause()\n"
        "sys.exit(child.main(sys.argv[1:]))\n"
    )
    job = train_job(bench.folder, bench.folder, processes=2)
    assert await bench.run(job, program=(str(program),)) == ChildStopped()


async def test_none_outlives_the_one_that_started_them(bench: Bench) -> None:
    """Killed, it can do nothing for them."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bench.stub(WAITS, processes=2))
        await begun(bench)
        pids = children(the_child())
        assert len(pids) == 2
        os.kill(the_child(), signal.SIGKILL)
    end = task.result()
    assert isinstance(end, ChildFailed)
    assert end.reason == "killed"
    await until(lambda: not any(lives(pid) for pid in pids))


async def test_those_that_do_not_stop_are_killed(bench: Bench) -> None:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bench.stub(f"{WAITS}\ntime.sleep(3600)", processes=2, grace_s=0.5))
        await begun(bench)
        pids = children(the_child())
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    await until(lambda: not any(lives(pid) for pid in pids))
