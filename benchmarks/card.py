"""A device: its clock, its memory, the most that it can do, and which batches a model was given on it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any, Self

import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from work import Batch

GIB = 2**30
SHARES = ("memory", "of the matrices", "of the bandwidth")
"""Heads of what is told of each way, whatever it does."""


class Card:
    """An NVIDIA GPU; or the CPU, to try things out."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.cuda = device == "cuda"
        self._free = self._reserved = 0

    def __str__(self) -> str:
        if not self.cuda:
            return self.device
        card = torch.cuda.get_device_properties(0)
        return f"{card.name} ({card.total_memory / GIB:.0f} GiB, CUDA {torch.version.cuda})"

    def now(self) -> float:
        """Seconds, when the device has done what it was told to.

        The wall's on a GPU; on the CPU those of this process, which other work on the machine does not lengthen.
        """
        if not self.cuda:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def seconds(self, work: Callable[[], object]) -> float:
        """From an idle device to an idle device."""
        began = self.now()
        work()
        return self.now() - began

    def clear(self) -> None:
        """Let go of all that nobody holds, and count memory from here."""
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self._free, self._reserved = torch.cuda.mem_get_info()[0], torch.cuda.memory_reserved()

    def taken(self) -> float | None:
        """Bytes at most since `clear`: PyTorch's, and what others than it hold now. None on the CPU."""
        if not self.cuda:
            return None
        others = (self._free - torch.cuda.mem_get_info()[0]) - (torch.cuda.memory_reserved() - self._reserved)
        return torch.cuda.max_memory_allocated() + max(0, others)

    def ceilings(self) -> tuple[float, float]:
        """Operations a second of a large product of matrices, and bytes a second, read and written, of a large copy.

        In bfloat16 on a GPU, on the CPU in float32: the best of several tries, with random numbers.
        """
        size, count, times = (8192, 2**30, 10) if self.cuda else (768, 2**22, 3)
        dtype = torch.bfloat16 if self.cuda else torch.float32
        one, two = (torch.randn(size, size, device=self.device, dtype=dtype) for _ in range(2))
        there = torch.empty_like(one)
        flops = 2 * size**3 * times / self._fastest(lambda: torch.mm(one, two, out=there), times)
        source = torch.randn(count, device=self.device, dtype=dtype)
        copied = torch.empty_like(source)
        moved = 2 * source.numel() * source.element_size()
        return flops, moved * times / self._fastest(lambda: copied.copy_(source), times)

    def _fastest(self, work: Callable[[], object], times: int) -> float:
        def several() -> None:
            for _ in range(times):
                work()

        return min(self.seconds(several) for _ in range(5))


def gib(taken: float | None) -> str:
    """Memory, as a table has it."""
    return "" if taken is None else f"{taken / GIB:.1f} GiB"


class Batches:
    """While it lasts, notes the rows and frames that a Whisper of transformers is given: its first convolution's."""

    def __init__(self) -> None:
        self.seen: list[Batch] = []
        self._hook: Any = None

    def __enter__(self) -> Self:
        self._hook = register_module_forward_pre_hook(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Note no more; while it does, each module of a model is a little slower."""
        if self._hook:
            self._hook.remove()
            self._hook = None

    def _note(self, module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        if isinstance(module, torch.nn.Conv1d) and module.stride == (1,):
            rows, _, frames = arguments[0].shape
            self.seen.append((rows, frames))
