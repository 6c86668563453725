"""The event loop's pulse: a real loop that is blocked, a real socket on which the service manager listens."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs
from witness import until

import daemon.pulse
from daemon.asr.transcriber import SAMPLE_RATE, Draft, Transcriber
from daemon.drafter import PATIENCE_PER_SECOND, PATIENCE_S, Drafter
from daemon.notify import Notifier
from daemon.pulse import Pulse

WATCHDOG_S = 0.3
GUARD_S = 20.0


class Manager:
    """The service manager's end."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        """Every message since the last call, in order."""
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.close()


class Model(Transcriber):
    """One that hangs on request."""

    name, fingerprint, window_s = "none", "0", 30.0

    def __init__(self) -> None:
        self.begun, self.answer = threading.Event(), threading.Event()
        self.free = 60_000_000_000

    def transcribe(self, batch: Any) -> list[Draft]:
        self.begun.set()
        assert self.answer.wait(GUARD_S)
        if any(np.isnan(wave).any() for wave in batch):
            raise ValueError("no such audio")
        return [Draft("", None) for _ in batch]

    def warm_up(self) -> None:
        pass

    def memory(self) -> tuple[int, int] | None:
        if self.free < 0:
            raise RuntimeError("CUDA error: the card fell off the bus")
        return self.free, 80_000_000_000


async def hung_for(seconds: float, pulse: Pulse) -> None:
    """Let the loop stand still, and the pulse notice."""
    await asyncio.sleep(0.05)
    time.sleep(seconds)  # noqa: ASYNC251 - that is what is tested
    await until(lambda: pulse.worst_s > seconds - 0.6, "the pulse notices")


async def test_a_blocked_loop_is_measured_logged_once_and_remembered_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(daemon.pulse, "REMEMBERED_S", 1.5)
    with capture_logs() as lines, Pulse(Notifier(None), lambda: 0.0) as pulse:
        await asyncio.sleep(0.6)
        assert pulse.worst_s < 0.4
        await hung_for(1.8, pulse)
        seen = pulse.worst_s
        assert 1.2 < seen < 5
        assert pulse.tasks == 1
        began = time.monotonic()
        await until(lambda: pulse.worst_s < seen, "it is forgotten")
        assert time.monotonic() - began > 1, "who looked a moment later has not seen it"
    blocked = [line for line in lines if line["event"] == "the event loop was blocked"]
    assert [line["seconds"] for line in blocked] == [round(seen, 1)]


async def test_the_watchdog_is_petted_from_the_start_on_and_within_half_of_its_time(manager: Manager) -> None:
    with Pulse(Notifier(manager.address, WATCHDOG_S), lambda: 0.0):
        assert "WATCHDOG=1" in manager.heard()
        for _ in range(6):
            await asyncio.sleep(WATCHDOG_S * 0.7)
            assert "WATCHDOG=1" in manager.heard()


async def test_a_start_asks_for_time_until_it_is_over(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon.pulse, "START_S", 0.2)
    with Pulse(Notifier(manager.address), lambda: 0.0) as pulse:
        await asyncio.sleep(0.4)
        asked = manager.heard()
        assert len(asked) >= 3
        assert set(asked) == {"EXTEND_TIMEOUT_USEC=200000"}
        pulse.ready("at work")
        assert manager.heard() == ["READY=1\nSTATUS=at work"]
        await asyncio.sleep(0.3)
        assert manager.heard() == []


async def test_a_shutdown_asks_once_even_before_the_start_is_over(manager: Manager) -> None:
    with Pulse(Notifier(manager.address, WATCHDOG_S), lambda: 0.0) as pulse:
        manager.heard()
        pulse.stopping(90)
        pulse.say("live v1, 3 pending")  # the clock goes on while a trainer writes its checkpoint
        with pulse.reloading():
            pass
        await asyncio.sleep(WATCHDOG_S)
        first, *others = manager.heard()
    assert first == "STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC=90000000"
    assert others
    assert set(others) == {"WATCHDOG=1"}
    await asyncio.sleep(WATCHDOG_S)
    assert manager.heard() == []


async def test_a_late_beat_is_no_sign_of_life(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon.pulse, "HUNG_S", 0.5)
    with Pulse(Notifier(manager.address, 3.0), lambda: 0.0) as pulse:
        await asyncio.sleep(0.1)
        manager.heard()
        time.sleep(2.0)  # noqa: ASYNC251
        await until(lambda: pulse.worst_s > 1, "the late beat", pause_s=0.01)
        assert manager.heard() == []
        await until(lambda: "WATCHDOG=1" in manager.heard(), "the next one, which is in time")


async def test_a_model_that_hangs_ends_the_petting_until_it_answers(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.drafter.PATIENCE_S", 0.3)
    monkeypatch.setattr("daemon.drafter.PATIENCE_PER_SECOND", 0.0)
    drafter, model = Drafter(), Model()
    await drafter.load(lambda: model)
    with capture_logs() as lines, Pulse(Notifier(manager.address, WATCHDOG_S), drafter.overdue_s):
        async with asyncio.TaskGroup() as tasks:
            work = tasks.create_task(drafter.transcribe([np.zeros(SAMPLE_RATE, np.float32)]))
            await until(lambda: drafter.overdue_s() > 0, "the model hangs")
            manager.heard()
            await asyncio.sleep(2 * WATCHDOG_S)
            assert manager.heard() == []
            model.answer.set()
            await work
        await until(lambda: "WATCHDOG=1" in manager.heard(), "it answered")
    assert [line["event"] for line in lines] == ["the model hangs"]
    drafter.close()


async def test_the_device_s_memory_is_told_after_each_batch() -> None:
    drafter, model = Drafter(), Model()
    model.answer.set()
    await drafter.load(lambda: model)
    assert drafter.describe()["memory"] == {"free": 60_000_000_000, "total": 80_000_000_000}
    for free, told in ((5_000_000_000, 5_000_000_000), (-1, None), (7_000_000_000, 7_000_000_000)):
        model.free = free
        assert len(await drafter.transcribe([np.zeros(SAMPLE_RATE, np.float32)])) == 1
        assert drafter.describe().get("memory", {"free": None})["free"] == told
    with pytest.raises(ValueError, match="no such audio"):
        await drafter.transcribe([np.full(SAMPLE_RATE, np.nan, np.float32)])
    assert "memory" not in drafter.describe(), "of a batch that failed nothing is known"
    await drafter.unload()
    assert drafter.describe() == {}
    drafter.close()


async def test_the_budget_counts_whole_windows_and_a_load_has_none() -> None:
    """Clips of two seconds and of one are a window of 30 s each, one of 31 s is two of them."""
    drafter, model = Drafter(), Model()
    loading = threading.Event()

    def slow() -> Model:
        loading.set()
        assert model.answer.wait(GUARD_S)
        return model

    async with asyncio.TaskGroup() as tasks:
        load = tasks.create_task(drafter.load(slow))
        await until(loading.is_set, "loading")
        assert drafter._deadline is None
        model.answer.set()
        await load
        model.answer.clear()
        waves = [np.zeros(seconds * SAMPLE_RATE, np.float32) for seconds in (2, 1, 31)]
        work = tasks.create_task(drafter.transcribe(waves))
        await until(model.begun.is_set, "at work")
        assert drafter._deadline is not None
        left = drafter._deadline - time.monotonic()
        assert left == pytest.approx(PATIENCE_S + PATIENCE_PER_SECOND * 4 * 30, abs=5)
        assert drafter.overdue_s() == 0.0
        model.answer.set()
        await work
    drafter.close()


async def test_whatever_hangs_ends_the_petting_and_is_named(manager: Manager) -> None:
    late = 0.0
    with capture_logs() as lines, Pulse(Notifier(manager.address, WATCHDOG_S), lambda: 0.0) as pulse:
        pulse.watch("the sweep", lambda: late)
        await until(lambda: "WATCHDOG=1" in manager.heard(), "it is petted")
        late = 3.0
        await until(lambda: [line for line in lines if line["event"] == "the sweep hangs"], "it is said")
        manager.heard()
        await asyncio.sleep(3 * WATCHDOG_S)
        assert manager.heard() == []
        late = 0.0
        await until(lambda: "WATCHDOG=1" in manager.heard(), "it is petted again")
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["the sweep hangs"]


async def test_a_status_is_told_when_it_changes(manager: Manager) -> None:
    with Pulse(Notifier(manager.address), lambda: 0.0) as pulse:
        pulse.say("nobody wants to know before it is ready")
        with pulse.reloading():
            pass
        assert all(message.startswith("EXTEND_TIMEOUT_USEC=") for message in manager.heard())
        pulse.ready("live v1, 0 pending")
        manager.heard()
        pulse.say("live v1, 0 pending")
        assert manager.heard() == []
        pulse.say("live v1, 3 pending")
        assert manager.heard() == ["STATUS=live v1, 3 pending"]
        with pulse.reloading():
            assert manager.heard()[0].startswith("RELOADING=1\n")
        assert manager.heard() == ["READY=1\nSTATUS=live v1, 3 pending"]
