"""One training in several processes, started as `torchrun` starts them, which end together: on this machine, and on
others that join.

Not by `torchrun`: its agent needs the network to the end, gives a checkpoint 30 s, and when it is asked to stop twice
it waits no longer. This process opens nothing that the job names.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from signal import SIGKILL
from tempfile import TemporaryDirectory

from daemon.errors import TemporaryError
from daemon.learning.job import TrainJob, read
from daemon.learning.machines import Call, Event, calling, software, towards
from daemon.learning.rank_process import CAUSE_S, RankProcess

_LOOK_S = 0.1
"""Between two looks whether somebody wants it to stop."""
_FAR_CAUSE_S = 15.0
"""Where that may be another machine: a disk that is shared may take so long."""
_FAR_LOOK_S = 1.0
"""Between two looks at that disk."""
_OF_THE_TRAINING = frozenset({"out-of-memory", "not-a-number", "crashed", "killed"})
"""Why a process may fail on one machine that would fail on another."""
_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}


def train_together(job: TrainJob, file: Path, say: Callable[..., None], stop: Callable[[], bool]) -> Event | int:
    """Do the job in `file` in as many processes as it says. What the first tells is told.

    When the memory of one runs out, all are begun anew with what it wants. Returns the last event; or, where there was
    none, the exit status of the process that ended without a word, negative if a signal ended it. None is left then.
    """
    if job.nodes > 1 and (job.out / "result.json").exists():
        job = replace(job, nodes=1)  # it is trained: no other machine is needed to say so
    while True:
        with calling(job, file) as call:
            last = _once(_Start(sys.argv[0], file, job.processes, call), say, stop)
        if isinstance(last, int):
            return last
        if "again" not in last:
            return last if job.nodes == 1 else _perhaps_gone(last)
        if stop():
            return {"event": "stopped"}
        job = replace(job, settings={**job.settings, **last["again"]})
        job.write(file)


def join(call: Call, node: int, stop: Callable[[], bool]) -> Event | None:
    """Do machine `node`'s share of what machine 0 calls for. Returns the last event; if it failed, that hears of it.

    None: another machine of this number does it. Raises `TemporaryError` if there are not so many machines.
    """
    if node >= call.nodes:
        message = (
            f"There are {call.nodes} machines to train, from 0 to {call.nodes - 1}: mend nodes there, or --node here."
        )
        raise TemporaryError(message, reason="machines")
    try:
        if not call.take(node):
            return None
        last = _refusal(call) or _share(call, node, stop)
    except OSError as error:
        last = _failed("machines", f"its disk or its system fails: {error.strerror}.")
    if last["event"] == "failed":
        # What else is wrong here, and not on machine 0, is of this machine: its cards, its mounts, its disk.
        reason = last["reason"] if last["reason"] in _OF_THE_TRAINING else "machines"
        last = {**last, "reason": reason, "message": f"Machine {node}: {last['message']}"}
        call.tell(node, last)
    return last


def _share(call: Call, node: int, stop: Callable[[], bool]) -> Event:
    try:
        job = read(Path(call.job))
    except OSError:
        return _failed("machines", f"{call.job} cannot be read there: all need the state directory under one name.")
    except ValueError:
        return _failed("machines", f"{call.job} is of another release there: install the same.")
    assert isinstance(job, TrainJob)
    program = str(Path(__file__).with_name("child.py"))
    last = _once(_Start(program, Path(call.job), job.processes, call, node), lambda *_, **__: None, stop)
    if last == -SIGKILL:
        return _failed("killed", "it was killed there, most likely because that machine's memory ran out.")
    return _failed("crashed", f"it ended there with exit status {last}.") if isinstance(last, int) else last


def _refusal(call: Call) -> Event | None:
    here = software()
    other = next((name for name in call.software if here.get(name) != call.software[name]), None)
    if other:
        there = f"{here[other]} there" if other in here else "is not there"
        return _failed("machines", f"{other} {there}, and {call.software[other]} on machine 0: install the same.")
    return None


def _failed(reason: str, message: str) -> Event:
    return {"event": "failed", "reason": reason, "message": message}


def _perhaps_gone(last: Event) -> Event:
    """Where a machine goes without a word, the others' connections break, of which nobody can say why."""
    if last.get("reason") != "crashed":
        return last
    return {**last, "message": f"{last['message']} If another machine is gone, look after `ambara join` there."}


@dataclass(frozen=True, slots=True)
class _Start:
    """What is started."""

    program: str
    file: Path
    count: int
    """How many on each machine."""
    call: Call | None
    node: int = 0

    def process(self, local: int, folder: Path) -> RankProcess:
        """Start one. `folder`: of this attempt, empty."""
        nodes = self.call.nodes if self.call else 1
        place: dict[str, object] = {
            "RANK": self.node * self.count + local,
            "WORLD_SIZE": nodes * self.count,
            "LOCAL_RANK": local,
            "LOCAL_WORLD_SIZE": self.count,
        }
        usual = {"OMP_NUM_THREADS": max(1, (os.cpu_count() or 1) // self.count)}
        meeting = self.call.meeting if self.call else f"file://{folder / 'meeting'}"
        if self.call:  # not met there; accelerate wants to see them
            host, _, port = self.call.rendezvous.rpartition(":")
            place |= {"MASTER_ADDR": host.strip("[]"), "MASTER_PORT": port}
        way = {**towards(self.call.rendezvous), **os.environ} if self.call else {**os.environ, **_LOOPBACK}
        environment = {**usual, **way, **place}
        return RankProcess(
            [self.program, str(self.file), str(os.getpid()), meeting],
            {name: str(value) for name, value in environment.items()},
        )


def _once(start: _Start, say: Callable[..., None], stop: Callable[[], bool]) -> Event | int:
    processes: list[RankProcess] = []
    with TemporaryDirectory(prefix="ambara-", ignore_cleanup_errors=True) as folder:
        try:
            for local in range(start.count):
                processes.append(start.process(local, Path(folder)))  # noqa: PERF401 - to be ended
            return _attend(processes, start, say, stop)
        finally:
            for process in processes:
                process.end()


def _attend(
    processes: Sequence[RankProcess], start: _Start, say: Callable[..., None], stop: Callable[[], bool]
) -> Event | int:
    """Hear them until the first is done, or one has failed, here or elsewhere."""
    first, asked, until, next_look = processes[0], False, float("inf"), 0.0
    awaited = processes if start.node else [first]
    call = None if start.node else start.call
    told: Sequence[Event] = ()
    with DefaultSelector() as selector:
        for process in processes:
            selector.register(process.output, EVENT_READ, process)
        # Where nobody here has more to say, somebody elsewhere may.
        while (selector.get_map() or call) and time.monotonic() < until:
            for key, _ in selector.select(_LOOK_S):
                process = key.data
                for event in process.heard():
                    if process is first and event["event"] == "progress":
                        say(**event)
                if process.mute:
                    selector.unregister(process.output)
            if first.last and all(process.last and not process.failed for process in awaited):
                return first.last
            if call and time.monotonic() >= next_look:
                call.beat()
                told, next_look = call.told(), time.monotonic() + _FAR_LOOK_S
            if _foreseen([*_failures(processes), *told]) and call:
                break
            if until == float("inf") and (told or any(process.failed for process in processes)):
                until = time.monotonic() + (_FAR_CAUSE_S if call else CAUSE_S)
            if stop() and not asked:
                if start.node:
                    return {"event": "stopped"}
                first.ask_to_stop()  # the others go by what the first does
                asked = True
    return _cause(processes, told)


def _failures(processes: Sequence[RankProcess]) -> list[Event]:
    return [process.last for process in processes if process.last and process.failed]


def _foreseen(failures: Sequence[Event]) -> Event | None:
    return next((event for event in failures if event["reason"] != "crashed"), None)


def _cause(processes: Sequence[RankProcess], told: Sequence[Event]) -> Event | int:
    """Why it failed: what one foresaw, or how one ended; else the unforeseen, such as a connection that broke."""
    said = [*_failures(processes), *told]
    if foreseen := _foreseen(said):
        return foreseen
    statuses = [process.status() for process in processes if process.mute and not process.last]
    if ended := [status for status in statuses if status]:
        return ended[0]
    return said[0] if said else 1
