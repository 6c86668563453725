"""The hot model, and the one thread that owns it."""

from __future__ import annotations

import asyncio
import ctypes
import math
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from daemon.asr.device import keep_memory
from daemon.asr.transcriber import SAMPLE_RATE, Draft, Transcriber, Waveform

PATIENCE_S = 30.0
"""Seconds that any work on the device may take ..."""
PATIENCE_PER_SECOND = 2.0
"""... and so many more for each second of audio that the model hears. What takes longer hangs."""

T = TypeVar("T")
_Job = tuple[Callable[[], Any], "asyncio.Future[Any]", float | None]


class Drafter:
    """Owns a `Transcriber` in a thread of its own, so that no torch call ever runs on the event loop.

    The thread is a daemon thread: a shutdown never waits for the device, the answer of the last batch is given up.
    """

    def __init__(self) -> None:
        keep_memory()  # before this thread
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()
        self._model: Transcriber | None = None
        self._memory: tuple[int, int] | None = None
        self._deadline: float | None = None
        self.version: int | None = None
        """The number under which the loaded model is known to the database."""

    @property
    def model(self) -> Transcriber:
        """The loaded model."""
        assert self._model is not None, "load() comes first"
        return self._model

    def describe(self) -> dict[str, Any]:
        """Facts about the loaded model, and its device's memory after the last batch; none between two."""
        model, memory = self._model, self._memory
        if not model:
            return {}
        return {**model.describe(), **({"memory": dict(zip(("free", "total"), memory, strict=True))} if memory else {})}

    @property
    def working(self) -> bool:
        """Whether a batch is on the device."""
        return self._deadline is not None

    def overdue_s(self) -> float:
        """By how many seconds the work on the device has outlasted its budget; 0 while it has not, or nothing runs.

        Loading a model has no budget: it may come over a slow line.
        """
        deadline = self._deadline
        return 0.0 if deadline is None else max(0.0, time.monotonic() - deadline)

    async def load(self, make: Callable[[], Transcriber]) -> Transcriber:
        """Make the model in its thread and warm it up. Whatever `make` raises comes out here."""

        def take() -> Transcriber:
            self._model = _made(make)
            return self._model

        return await self._run(take)

    async def prepare(self, make: Callable[[], Transcriber]) -> Transcriber:
        """Make another model beside the hot one, which goes on drafting meanwhile; `use` makes it the hot one.

        Whatever `make` raises comes out here, the want of memory for two models included.
        """
        return await self.beside(lambda: _made(make))

    async def beside(self, work: Callable[[], T]) -> T:
        """Do something with a model that is not the hot one, in a thread that ends with it. What `work` raises comes
        out here.

        Not a pool's thread: the end of the process would wait for it, and each that ever ran a model keeps the memory
        that this took.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        threading.Thread(target=_answer, args=(work, future), name="beside", daemon=True).start()
        return await future

    async def use(self, model: Transcriber, version: int) -> None:
        """Put a prepared model in place of the hot one, after the batch that is on the device."""

        def exchange() -> None:
            self._model = model
            _give_back()

        await self._run(exchange)
        self.version = version

    async def unload(self) -> None:
        """Drop the model, to make room for another. Nothing can be drafted until `load`."""

        def drop() -> None:
            self._model = None
            _give_back()

        self.version = None
        await self._run(drop)

    async def transcribe(self, batch: Sequence[Waveform]) -> list[Draft]:
        """Draft a batch; see `Transcriber.transcribe`."""
        return await self._run(lambda: self.model.transcribe(batch), self._budget_s(batch))

    async def probe(self) -> None:
        """Raise if the device no longer works."""
        await self._run(self.model.warm_up, self._budget_s([]))

    def close(self) -> None:
        """Let the thread end after what it is doing."""
        self._jobs.put(None)

    async def _run(self, work: Callable[[], T], budget_s: float | None = None) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put((work, future, budget_s))
        return await future

    def _budget_s(self, batch: Sequence[Waveform]) -> float:
        """How long a batch may take. The model hears whole windows, however short the clips."""
        window_s = self.model.window_s
        heard_s = sum(math.ceil(len(wave) / SAMPLE_RATE / window_s) * window_s for wave in batch)
        return PATIENCE_S + PATIENCE_PER_SECOND * max(heard_s, window_s)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, future, budget_s = job
            self._deadline = None if budget_s is None else time.monotonic() + budget_s
            _answer(partial(self._do, work), future)
            self._deadline = None
            del job, work, future  # or the model that it dropped would stay in memory until the next

    def _do(self, work: Callable[[], T]) -> T:
        try:
            result = work()
        except BaseException:
            self._memory = None  # nobody knows any more; while a batch is at work, the last figure stands
            raise
        self._deadline = self._deadline or time.monotonic() + PATIENCE_S  # a card that hangs may do so here
        try:
            self._memory = self._model.memory() if self._model else None
        except Exception:  # the next batch meets the device's error, and knows what to do with it
            self._memory = None
        return result


def _made(make: Callable[[], Transcriber]) -> Transcriber:
    model = make()
    model.warm_up()
    _give_back()  # of what it was made of
    return model


def _give_back() -> None:
    """Return to the system what PyTorch and the C library keep of a model that is gone: as much as the model was.

    On a graphics card a trainer would find no room beside what nobody uses. Only some C libraries can; the others have
    no such habit.
    """
    torch = sys.modules.get("torch")  # not imported for this
    if torch and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _answer(work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
    """Do the work in this thread and tell the loop."""
    try:
        result, error = work(), None
    except BaseException as caught:  # handed to the caller, whatever it is
        _empty(caught)
        result, error = None, caught
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        future.get_loop().call_soon_threadsafe(_settle, future, result, error)


def _empty(error: BaseException | None) -> None:
    """Let go of what the frames that an error came through still hold: half a model, on a device that has no more."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # the caller was cancelled meanwhile
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
