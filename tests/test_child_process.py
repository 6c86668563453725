"""Real children: what they are given, what they tell, and how they end, be it by whatever hand."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from child_bench import GENEROUS_S, STUB, Bench, children, lives, open_files, the_child, train_job, until

from daemon.learning.ports import ChildDone, ChildFailed, ChildStopped
from daemon.learning.process import LOG_BYTES, run_child

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at processes through /proc")

ROOT = Path(__file__).parents[1]
SECRETS = {
    "SUPABASE_SERVICE_ROLE_KEY": "key-of-the-project",
    "SUPABASE_URL": "https://secret-project.example",
    "AMBARA_SUPABASE__KEY": "key-once-more",
    "HF_TOKEN": "token-of-the-hub",
    "HUGGING_FACE_HUB_TOKEN": "token-as-it-was-called",
    "NOTIFY_SOCKET": "/run/notify-of-systemd",
    "CREDENTIALS_DIRECTORY": "/run/credentials-of-systemd",
}


@pytest.fixture(autouse=True)
async def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """After each test: no zombie, no process that still runs, no open file more than before."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    await (await asyncio.create_subprocess_exec("true")).wait()  # whatever is opened once for all is open now
    before, files = children(os.getpid()), open_files()
    yield
    await asyncio.sleep(0)  # for the transports that close when they are next asked
    assert children(os.getpid()) == before
    assert open_files() <= files


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def about(pid: int, what: str) -> bytes:
    return Path(f"/proc/{pid}/{what}").read_bytes()


async def test_no_secret_reaches_it_and_what_it_needs_does(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bench.stub("tell(1)\nwhile not stop(): time.sleep(0.01)"))
        await until(lambda: bench.steps() == [1])
        pid = the_child()
        given = about(pid, "environ") + about(pid, "cmdline")
        os.kill(pid, signal.SIGTERM)
    assert task.result() == ChildStopped()
    assert not [name for name, value in SECRETS.items() if name.encode() in given or value.encode() in given]
    for name in ("PATH", "HOME", "CUDA_VISIBLE_DEVICES=1", "LC_ALL=C.UTF-8", "OMP_NUM_THREADS=1", "GOMP_SPINCOUNT=7"):
        assert name.encode() in given


async def test_it_does_not_outlive_a_parent_that_is_killed(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "stub.py").write_text(STUB.format(body="    tell(1)\n    time.sleep(3600)"))
    job = train_job(tmp_path, tmp_path).write(tmp_path / "job.json")
    parent = f"""
import asyncio
from pathlib import Path
from daemon.learning.process import run_child

def tell(facts):
    if "step" in facts:
        print("trains", flush=True)

asyncio.run(run_child(Path({str(job)!r}), Path({str(bench.log)!r}), tell, program=[{str(tmp_path / "stub.py")!r}]))
"""
    with subprocess.Popen(  # noqa: ASYNC220 - the parent that is to be killed
        [sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"trains\n"
        (child,) = children(process.pid)
        assert lives(child)
        process.kill()
    await until(lambda: not lives(child))


async def test_what_a_library_prints_is_no_event(bench: Bench) -> None:
    """Prints of Python, of a program it starts, of a fork, and right on the descriptor: all go to the log."""
    end = await bench.stub(
        """
print('{"event": "done", "result": {"from": "print"}}', flush=True)
os.write(1, b'{"event": "done", "result": {"from": "descriptor"}}\\n')
subprocess.run(["echo", '{"event": "done", "result": {"from": "program"}}'])
if not os.fork():
    os.write(1, b'{"event": "done", "result": {"from": "fork"}}\\n')
    os._exit(0)
os.wait()
tell(1)
"""
    )
    assert isinstance(end, ChildDone)
    assert end.result["steps"] == 9
    assert bench.steps() == [1]
    said = bench.log.read_text()
    assert all(f'"from": "{who}"' in said for who in ("print", "descriptor", "program", "fork"))
    assert bench.log.stat().st_mode & 0o777 == 0o600


async def test_lines_that_are_no_events_are_passed_over(bench: Bench, tmp_path: Path) -> None:
    program = tmp_path / "babble.py"
    program.write_text(
        """
print("no JSON"); print("[1]"); print('{"event": "dance"}'); print('{"event": "done", "result": 3}'); print()
print('{"event": "progress", "text": "' + "x" * 1_000_000 + '"}'); print("\\udcff".encode("utf-8", "surrogateescape"))
print('{"event": "progress", "loss": NaN, "wer": -Infinity, "step": 2}')
print('{"event": "done", "result": {"loss": NaN}}')
"""
    )
    end = await bench.run(train_job(tmp_path, tmp_path), program=(str(program),))
    assert end == ChildDone({"loss": None})
    assert bench.heard == [{"loss": None, "wer": None, "step": 2}]


@pytest.mark.parametrize(
    ("body", "reason", "words"),
    [
        ('raise TrainingError("not-a-number", "The loss is no number.")', "not-a-number", "The loss is no number."),
        ("raise MemoryError", "out-of-memory", "batch_size"),
        ('raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")', "out-of-memory", "batch_size"),
        ('raise OSError(errno.ENOSPC, "No space left on device")', "disk-full", "make room"),
        ('raise KeyError("private words")', "crashed", "KeyError"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed", "SIGSEGV"),
        ("os._exit(7)", "crashed", "7"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed", "memory"),
    ],
)
async def test_a_failure_has_a_reason_and_a_sentence(bench: Bench, body: str, reason: str, words: str) -> None:
    end = await bench.stub(body)
    assert isinstance(end, ChildFailed)
    assert end.reason == reason
    assert words in end.message
    assert "private" not in end.message
    if body.startswith("raise"):
        assert "Error" in bench.log.read_text().splitlines()[-1], "its last line is lost"


async def test_a_job_that_is_none_is_a_failure_and_no_silence(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("{}")
    end = await run_child(tmp_path / "job.json", bench.log, bench.heard.append)
    assert isinstance(end, ChildFailed)
    assert end.reason == "crashed"
    assert "no job" in bench.log.read_text()


async def test_one_that_is_ended_before_it_listens_was_stopped(bench: Bench, tmp_path: Path) -> None:
    program = tmp_path / "early.py"
    program.write_text("import os, signal; os.kill(os.getpid(), signal.SIGTERM); signal.pause()")
    assert await bench.run(train_job(tmp_path, tmp_path), program=(str(program),)) == ChildStopped()


async def test_one_that_says_nothing_is_ended(bench: Bench) -> None:
    """Whether it listens to the request or not."""
    for body in ("while not stop(): time.sleep(0.01)", "time.sleep(3600)", "while True: time.sleep(3600)"):
        end = await bench.stub(body, silent_s=2.0, grace_s=0.5)
        assert isinstance(end, ChildFailed)
        assert end.reason == "hung"


async def test_one_that_speaks_is_not_taken_for_hung(bench: Bench) -> None:
    end = await bench.stub("for step in range(1, 13):\n    tell(step)\n    time.sleep(0.25)", silent_s=2.0)
    assert isinstance(end, ChildDone)
    assert bench.steps() == list(range(1, 13))


async def test_a_cancellation_that_is_not_heard_becomes_a_kill_of_all_that_it_started(bench: Bench) -> None:
    body = """
if not (worker := os.fork()):
    time.sleep(3600)
program = subprocess.Popen(["sleep", "3600"])
tell(worker)
tell(program.pid)
while True:
    time.sleep(3600)
"""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bench.stub(body, grace_s=0.5))
        await until(lambda: len(bench.steps()) == 2)
        assert all(lives(pid) for pid in bench.steps())
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    await until(lambda: not any(lives(pid) for pid in bench.steps()))


async def test_workers_that_outlive_it_are_ended_and_do_not_keep_it_waiting(bench: Bench) -> None:
    """They hold its standard error open, and would hold it for an hour."""
    body = "worker = os.fork()\nif not worker:\n    time.sleep(3600)\ntell(worker)\nos._exit(3)"
    end = await bench.stub(body)
    assert isinstance(end, ChildFailed)
    assert end.reason == "crashed"
    (worker,) = bench.steps()
    await until(lambda: not lives(worker))


async def test_a_second_cancellation_does_not_wait_for_the_checkpoint(bench: Bench) -> None:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bench.stub("tell(1)\nwhile True: time.sleep(3600)", grace_s=GENEROUS_S * 10))
        await until(lambda: bench.steps() == [1])
        task.cancel()
        await asyncio.sleep(0.2)
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()


async def test_what_it_had_to_tell_counts_even_if_it_does_not_end(bench: Bench) -> None:
    """A library's thread keeps the interpreter from leaving."""
    body = "import threading\nthreading.Thread(target=time.sleep, args=(3600,)).start()"
    assert isinstance(await bench.stub(body, grace_s=0.5), ChildDone)


async def test_its_log_keeps_the_end_and_stays_small(bench: Bench) -> None:
    bench.log.write_text("of the run before\n")
    end = await bench.stub("for line in range(40_000): print(line, 'x' * 100)\nprint('the last words')")
    assert isinstance(end, ChildDone)
    old = bench.log.with_name("train.log.old")
    assert old.exists()
    assert max(bench.log.stat().st_size, old.stat().st_size) < 2 * LOG_BYTES
    assert bench.log.read_text().endswith("the last words\n")
    assert isinstance(await bench.stub("print('another')"), ChildDone)
    assert (old.read_text() + bench.log.read_text()).endswith("the last words\nanother\n")
    assert bench.log.read_text().endswith("another\n")


async def test_what_fills_its_log_is_still_found_in_it(bench: Bench) -> None:
    for size in (LOG_BYTES - 1, LOG_BYTES, LOG_BYTES + 1):
        body = f"sys.stderr.write('x' * {size - 11} + 'last words\\n')\nsys.stderr.flush()"
        assert isinstance(await bench.stub(body), ChildDone)
        assert bench.log.read_text().endswith("last words\n")


async def test_a_log_that_cannot_be_written_stops_nobody(bench: Bench) -> None:
    bench.log.mkdir()
    assert isinstance(await bench.stub("print('for nobody')"), ChildDone)
