"""The daemon's end of a child that trains or judges: start it, hear it, and see it to its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from daemon.learning.ports import ChildDone, ChildEnd, ChildFailed, ChildStopped

PROGRAM = ("-m", "daemon.learning.child")
LONGEST_LINE = 1 << 16
LOG_BYTES = 1 << 20
"""A longer log begins anew; what was is kept beside it, once."""
UNKILLABLE_S = 10.0
"""A process that a driver holds does not even hear SIGKILL: nobody waits longer for it."""

_KEPT = {
    *("PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "OPENBLAS_NUM_THREADS"),
    *("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "VIRTUAL_ENV"),
}
_KEPT_BEGINNINGS = (
    *("LC_", "CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "HSA_", "MKL_", "OMP_", "GOMP_", "PYTORCH_", "TORCH_"),
)


async def run_child(
    job_file: Path,
    log: Path,
    on_progress: Callable[[Mapping[str, Any]], None],
    *,
    grace_s: float = 60.0,
    silent_s: float = 1800.0,
    program: Sequence[str] = PROGRAM,
) -> ChildEnd:
    """Let a child do the job in `job_file`, and return how it ended.

    Args:
        job_file: as a job's `write` left it.
        log: takes what the child writes to standard error, behind what is there.
        on_progress: hears the facts of each progress event. It must not raise.
        grace_s: how long a child that was asked to stop may take for its checkpoint, before it is killed.
        silent_s: a child that tells nothing for so long hangs, and is ended.
        program: the interpreter's arguments before the job's path and this process's number.

    A cancellation asks the child to stop, waits for it, and is then raised on. Whatever happens, the child and all that
    it started are gone and reaped afterwards.
    """
    try:
        process = await _start([*program, str(job_file), str(os.getpid())])
    except OSError as error:
        return ChildFailed("cannot-start", f"No process can be started for it: {error.strerror}.")
    async with asyncio.TaskGroup() as tasks:
        logging = tasks.create_task(_keep(process, log))
        try:
            end = await _attend(process, on_progress, grace_s, silent_s)
        finally:
            await _bury(process)
            await asyncio.wait([logging], timeout=UNKILLABLE_S)  # for its last lines
            logging.cancel()
    return end or _without_a_word(process.returncode, log)


async def _start(arguments: Sequence[str]) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # the working directory is no place to import from
        *arguments,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env=environment(os.environ),
        limit=LONGEST_LINE,
        start_new_session=True,  # Ctrl-C in a terminal is for the daemon, which asks the child itself
    )


async def _attend(
    process: Process, on_progress: Callable[[Mapping[str, Any]], None], grace_s: float, silent_s: float
) -> ChildEnd | None:
    """Hear the child until it has ended, or should have. None if it ended without a last word."""
    try:
        end = await _listen(process, on_progress, silent_s)
    except TimeoutError:
        end = ChildFailed("hung", f"It said nothing for {silent_s / 60:.0f} minutes and was ended.")
        _ask_to_stop(process)
    except BaseException:
        _ask_to_stop(process)
        await _ended(process, grace_s)
        raise
    await _ended(process, grace_s)
    return end


async def _listen(
    process: Process, on_progress: Callable[[Mapping[str, Any]], None], silent_s: float
) -> ChildEnd | None:
    """Read events up to the last. Raises `TimeoutError` when there is none for `silent_s`."""
    assert process.stdout is not None
    while True:
        try:
            async with asyncio.timeout(silent_s):
                line = await process.stdout.readline()
        except ValueError:  # longer than any event
            continue
        if not line:
            return None
        match _event(line):
            case {"event": "progress", **facts}:
                on_progress(facts)
            case {"event": "done", "result": dict(result)}:
                return ChildDone(result)
            case {"event": "failed", "reason": str(reason), "message": str(message)}:
                return ChildFailed(reason, message)
            case {"event": "stopped"}:
                return ChildStopped()


def _event(line: bytes) -> dict[str, Any]:
    """What a line says, if anything. What is not a finite number becomes None: no database takes it."""
    try:
        event = json.loads(line, parse_constant=lambda _: None)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _ask_to_stop(process: Process) -> None:
    """Ask the child alone: workers of a data loader that end under it would cost it the checkpoint."""
    with suppress(ProcessLookupError):
        process.terminate()


async def _ended(process: Process, within_s: float) -> None:
    """Wait for the child's end, which is that of its standard output: nothing that it forks keeps that open."""
    assert process.stdout is not None
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while await process.stdout.read(LONGEST_LINE):
                pass


async def _bury(process: Process) -> None:
    """Kill what is left of the child and of all that it started, and reap it, whoever cancels meanwhile."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    cancelled: asyncio.CancelledError | None = None
    clock = asyncio.get_running_loop().time
    deadline = clock() + UNKILLABLE_S
    while process.returncode is None and clock() < deadline:
        try:
            async with asyncio.timeout_at(deadline):
                await _ended(process, UNKILLABLE_S)
                await process.wait()
        except TimeoutError:
            pass
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled:
        raise cancelled


async def _keep(process: Process, log: Path) -> None:
    """Append the child's standard error to the log, and throw away what the disk does not take."""
    assert process.stderr is not None
    while chunk := await process.stderr.read(LONGEST_LINE):
        with suppress(OSError):
            _append(log, chunk)


def _append(log: Path, chunk: bytes) -> None:
    """Begin a new file before it is written to, not after: the last words always lie in `log`, however long."""
    with suppress(FileNotFoundError):
        if log.stat().st_size >= LOG_BYTES:
            log.replace(log.with_name(f"{log.name}.old"))
    number = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(number, chunk)
    finally:
        os.close(number)


def _without_a_word(status: int | None, log: Path) -> ChildEnd:
    """The end of a child that did not tell of it."""
    if status in (-signal.SIGTERM, -signal.SIGINT):
        return ChildStopped()  # before it could listen: nothing had begun
    if status in (-signal.SIGKILL, None):
        return ChildFailed("killed", "It was killed, most likely because the machine's memory ran out.")
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
    return ChildFailed("crashed", f"It {how} and said nothing of it: {log} may tell why.")


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What the interpreter, its libraries and the device need; never a key. The package is importable by its place."""
    kept = {name: value for name, value in ours.items() if name in _KEPT or name.startswith(_KEPT_BEGINNINGS)}
    roots = [ours.get("PYTHONPATH", ""), str(Path(__file__).parents[2])]
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, roots))}
