"""What happens to the decoder's child, and what a child may do to its parent."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.decode import CHILD, Decoder
from daemon.errors import AmbaraError, PermanentError, TemporaryError


def wav(level: int = 1_000, samples: int = 16_000, *, channels: int = 1, rate: int = 16_000) -> bytes:
    """16-bit samples that all have the same level, or only the header where `level` is 0."""
    frame, size = 2 * channels, 2 * channels * samples
    head = struct.pack(
        "<4sI4s4sIHHIIHH", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, channels, rate, rate * frame, frame, 16
    )
    return head + struct.pack("<4sI", b"data", size) + struct.pack("<h", level) * (size // 2 if level else 0)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    path.write_bytes(wav())
    return path


async def decode(decoder: Decoder, path: Path) -> int:
    """Decode, and return how many samples came."""
    with path.open("rb") as file:
        return len(await decoder.decode(file))


async def pause() -> None:
    """Let the other tasks run until they wait for a child."""
    for _ in range(20):
        await asyncio.sleep(0)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def descriptors(pid: int) -> list[str]:
    return sorted(path.name for path in Path(f"/proc/{pid}/fd").iterdir())


def shown(pid: int) -> bytes:
    """What other processes of the user can read about this one."""
    return b"".join(Path(f"/proc/{pid}/{place}").read_bytes() for place in ("environ", "cmdline"))


@pytest.mark.parametrize("fatal", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_child_killed_in_the_middle_is_replaced(clip: Path, fatal: signal.Signals) -> None:
    async with Decoder() as decoder:
        assert await decode(decoder, clip) == 16_000
        (first,) = decoder.pids
        os.kill(first, signal.SIGSTOP)
        async with asyncio.TaskGroup() as group:
            interrupted = group.create_task(decode(decoder, clip))
            await pause()
            os.kill(first, fatal)
            os.kill(first, signal.SIGCONT)
        assert interrupted.result() == 16_000
        (second,) = decoder.pids
        assert second != first
        assert not alive(first)


async def test_a_child_that_died_idle_is_replaced(clip: Path) -> None:
    async with Decoder() as decoder:
        await decode(decoder, clip)
        os.kill(decoder.pids[0], signal.SIGKILL)
        assert await decode(decoder, clip) == 16_000


async def test_the_wall_clock_ends_a_stuck_child(clip: Path) -> None:
    """A slow machine is not the file's fault, so the clip may come again."""
    async with Decoder(timeout_s=2) as decoder:
        await decode(decoder, clip)
        (stuck,) = decoder.pids
        os.kill(stuck, signal.SIGSTOP)
        with pytest.raises(TemporaryError) as caught:
            await decode(decoder, clip)
        assert caught.value.reason == "audio-timeout"
        assert not alive(stuck)
        assert await decode(decoder, clip) == 16_000


def sparse(path: Path, frames: int) -> Path:
    """A file of zeros in 8 channels at 192 kHz that takes no room on the disk."""
    path.write_bytes(wav(0, frames, channels=8, rate=192_000))
    os.truncate(path, 44 + 16 * frames)
    return path


async def test_processor_time_runs_out(clip: Path, tmp_path: Path) -> None:
    """A gigabyte of samples takes seconds."""
    huge = sparse(tmp_path / "huge.wav", 1 << 26)
    async with Decoder(max_seconds=6_000, cpu_seconds=0) as decoder:
        with pytest.raises(PermanentError) as caught:
            await decode(decoder, huge)
        assert caught.value.reason == "audio-timeout"
        assert await decode(decoder, clip) == 16_000


async def test_processor_time_counts_anew_for_each_file(tmp_path: Path) -> None:
    path = sparse(tmp_path / "small.wav", 5_000_000)
    async with Decoder(max_seconds=6_000, cpu_seconds=7) as decoder:
        await decode(decoder, path)
        (pid,) = decoder.pids
        while (used := cpu_seconds(pid)) < 1.1:
            await decode(decoder, path)
        await decode(decoder, path)
        assert resource.prlimit(pid, resource.RLIMIT_CPU)[0] >= used + 7


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_a_machine_that_cannot_decode_does_not_blame_the_file(clip: Path, tmp_path: Path) -> None:
    """Here: a library that is unusable once the limits stand."""
    program = tmp_path / "child.py"
    signature = "def _confine(memory_bytes: int) -> None:"
    program.write_text(CHILD.read_text().replace(signature, f"{signature}\n    soxr.ResampleStream = None\n"))
    async with Decoder(program=program) as decoder:
        with pytest.raises(TemporaryError) as caught:
            await decode(decoder, clip)
        assert caught.value.reason == "decoder-unavailable"


async def test_where_no_process_can_be_started_no_file_is_blamed(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Decoder() as decoder:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(tmp_path / "gone"))
            with pytest.raises(TemporaryError, match="No such file") as caught:
                await decode(decoder, clip)
        assert caught.value.reason == "decoder-unavailable"
        await decode(decoder, clip)


async def test_a_cancelled_call_leaves_no_answer_behind(clip: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.wav"
    other.write_bytes(wav(-2_000, 8_000))
    async with Decoder() as decoder:
        await decode(decoder, clip)
        async with asyncio.TaskGroup() as group:
            cancelled = group.create_task(decode(decoder, clip))
            await pause()
            cancelled.cancel()
        assert await decode(decoder, other) == 8_000


async def test_calls_overlap_and_keep_their_answers(tmp_path: Path) -> None:
    paths = [tmp_path / f"{samples}.wav" for samples in range(1_000, 1_024)]
    for path in paths:
        path.write_bytes(wav(500, int(path.stem)))
    async with Decoder(children=2) as decoder:
        lengths = await asyncio.gather(*(decode(decoder, path) for path in paths))
        assert lengths == list(range(1_000, 1_024))
        assert len(decoder.pids) == 2


async def test_nothing_leaks(clip: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no sound")
    async with Decoder() as decoder:
        await decode(decoder, clip)
        here, (pid,) = descriptors(os.getpid()), decoder.pids
        for _ in range(30):
            await decode(decoder, clip)
            with pytest.raises(PermanentError):
                await decode(decoder, text)
        assert decoder.pids == (pid,)
        assert descriptors(os.getpid()) == here
        assert descriptors(pid) == ["0", "1", "2"]
    assert not alive(pid)


async def test_the_child_has_limits_and_no_secret(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_URL", "HF_TOKEN", "PGPASSWORD"):
        monkeypatch.setenv(name, "sb_secret_of_the_test")
    async with Decoder(cpu_seconds=7) as decoder:
        await decode(decoder, clip)
        (pid,) = decoder.pids
        assert b"sb_secret_of_the_test" not in shown(pid)
        assert os.getsid(pid) == pid, "Ctrl-C in the daemon's terminal would reach it"
        soft, _ = resource.prlimit(pid, resource.RLIMIT_CPU)
        assert 7 < soft < 20
        hard = {name: resource.prlimit(pid, getattr(resource, f"RLIMIT_{name}"))[1] for name in LIMITS}
        assert hard == LIMITS


LIMITS = {"AS": 512 << 20, "FSIZE": 0, "CORE": 0, "NPROC": 0, "NOFILE": 4}
ESCAPE = """
import os, pathlib, runpy, socket, sys
outside = os.open(sys.argv[2], os.O_RDONLY)
runpy.run_path(sys.argv[1])["_confine"](1 << 30)
print(os.read(outside, 4))
os.close(outside)
attempts = {
    "read": lambda: open(sys.argv[2]),
    "write": lambda: open(sys.argv[2] + ".new", "w"),
    "list": lambda: os.listdir("/"),
    "connect": lambda: socket.create_connection(("127.0.0.1", 9), 1),
    "second file": lambda: (os.dup(0), os.dup(0)),
    "memory": lambda: bytearray(1 << 30),
}
for name, attempt in attempts.items():
    try:
        attempt()
    except (OSError, MemoryError) as error:
        print(name, type(error).__name__)
    else:
        print(name, "done")
"""


def test_a_compromised_child_is_confined(clip: Path) -> None:
    """After `_confine` a descriptor that was sent can be read, and nothing else can be opened."""
    done = subprocess.run(
        [sys.executable, "-c", ESCAPE, CHILD, clip], capture_output=True, text=True, check=True, timeout=60
    )
    sent, *lines = done.stdout.splitlines()
    answers = dict(line.rsplit(" ", 1) for line in lines)
    assert sent == "b'RIFF'"
    assert "done" not in answers.values()
    assert answers["memory"] == "MemoryError"
    if landlock_version() >= 4:
        assert {answers[name] for name in ("read", "write", "list", "connect")} == {"PermissionError"}


def landlock_version() -> int:
    ask = "import ctypes; print(ctypes.CDLL(None).syscall(444, None, 0, 1))"
    return int(subprocess.run([sys.executable, "-c", ask], capture_output=True, check=True, timeout=60).stdout)


CHILDREN = {
    "dies at once": ("", "decoder-unavailable"),
    "is never ready": ("say(b'E')", "decoder-unavailable"),
    "dies on every file": ("say(b'R'); take(); os.abort()", "audio-crashes-decoder"),
    "runs out of memory": ("say(b'R'); take(); raise MemoryError", "audio-crashes-decoder"),
    "answers half a header": ("say(b'R'); take(); channel.sendall(b'W')", "audio-crashes-decoder"),
    "answers half a payload": ("say(b'R'); take(); channel.sendall(b'W\\0\\0\\0\\x08abcd')", "audio-crashes-decoder"),
    "announces 4 GB": ("say(b'R'); take(); channel.sendall(b'W\\xff\\xff\\xff\\xff'); wait()", "audio-crashes-decoder"),
    "sends without end": ("say(b'R'); take()\nwhile True: say(b'W', bytes(65536))", "audio-crashes-decoder"),
    "sends nothing without end": ("say(b'R'); take()\nwhile True: say(b'W')", "audio-crashes-decoder"),
    "sends a broken sample": ("say(b'R'); take(); say(b'W', b'abc'); say(b'E')", "audio-crashes-decoder"),
    "sends NaN": ("say(b'R'); take(); say(b'W', b'\\xff' * 400); say(b'E')", "audio-crashes-decoder"),
    "ends before it began": ("say(b'R'); take(); say(b'E')", "audio-crashes-decoder"),
    "invents a reason": ("say(b'R'); take(); say(b'X', b'drop table')", "audio-crashes-decoder"),
    "invents a frame": ("say(b'R'); take(); say(b'?')", "audio-crashes-decoder"),
    "uses up its time": ("say(b'R'); take(); os.kill(os.getpid(), 24)", "audio-timeout"),
    "hangs": ("say(b'R'); take(); wait()", "audio-timeout"),
    "hangs at the start": ("wait()", "decoder-unavailable"),
}
PROLOGUE = """
import os, socket, struct, time
channel = socket.socket(fileno=0)
def say(kind, payload=b""): channel.sendall(struct.pack(">cI", kind, len(payload)) + payload)
def take(): assert channel.recv(1)
def wait(): time.sleep(600)
"""


@pytest.mark.parametrize("name", CHILDREN)
async def test_whatever_a_child_does_the_call_ends(name: str, clip: Path, tmp_path: Path) -> None:
    """A child under a stranger's control can spoil the answer to its file and nothing else."""
    program, expected = CHILDREN[name]
    path = tmp_path / "child.py"
    path.write_text(PROLOGUE + program)
    async with Decoder(program=path, max_seconds=60, timeout_s=2 if "hangs" in name else 60) as decoder:
        with pytest.raises(AmbaraError) as caught:
            await decode(decoder, clip)
        assert caught.value.reason == expected
        assert isinstance(caught.value, TemporaryError) == (name == "hangs" or expected == "decoder-unavailable")
        assert decoder.pids == ()


async def test_the_second_child_gets_a_second_chance(clip: Path, tmp_path: Path) -> None:
    path, mark = tmp_path / "child.py", tmp_path / "mark"
    answer = "say(b'W', bytes(4000)); say(b'E'); wait()"
    first = f"if not os.path.exists({str(mark)!r}): open({str(mark)!r}, 'w'); os.abort()"
    path.write_text(f"{PROLOGUE}say(b'R'); take()\n{first}\n{answer}")
    async with Decoder(program=path) as decoder:
        with clip.open("rb") as file:
            wave = await decoder.decode(file)
    assert wave.tolist() == [0.0] * 1_000
    assert mark.exists()


async def test_close_ends_calls_in_flight_and_later_ones(clip: Path) -> None:
    decoder = Decoder()
    await decode(decoder, clip)
    (pid,) = decoder.pids
    os.kill(pid, signal.SIGSTOP)
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(outcome(decoder, clip)) for _ in range(3)]
        await pause()
        await decoder.close()
    assert [call.result() for call in calls] == ["decoder-closed"] * 3
    assert await outcome(decoder, clip) == "decoder-closed"
    await decoder.close()
    assert not alive(pid)


async def outcome(decoder: Decoder, clip: Path) -> str:
    try:
        await decode(decoder, clip)
    except TemporaryError as error:
        return error.reason
    return "decoded"
