"""A device and its memory. Importing this loads no torch."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Of mallopt(3)."""


@dataclass(frozen=True, slots=True)
class Device:
    """Where a model runs. Memory is in bytes."""

    name: str
    """As PyTorch and its maker call it: ``cuda (NVIDIA H100)``."""
    dtype: str
    total: int
    free: int
    """At this moment, beside whatever else runs there."""


def measure(device: torch.device | str, dtype: str) -> Device:
    """Ask a device how large it is."""
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return Device(f"cuda ({torch.cuda.get_device_name(device)})", dtype, total, free)
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        return Device("mps", dtype, total, max(total - torch.mps.driver_allocated_memory(), 0))
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device("cpu", dtype, total, _available(total))


def keep_memory() -> None:
    """Let the C library keep what one batch frees for the next. Before the threads are begun: each keeps its arena.

    glibc returns an array of some megabytes to the kernel as soon as it is freed, and asks for it again a moment later,
    page by page and zeroed: a good part of what drafting takes on a CPU. One arena, because a second one holds nothing
    that large. Who lets go of a model calls malloc_trim(3). Other C libraries stay as they are.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        # Older ones take 32 MiB at most, and with what they have refused the last would make it worse.
        if mallopt(_MMAP_THRESHOLD, 1 << 30) or mallopt(_MMAP_THRESHOLD, 1 << 25):
            mallopt(_ARENA_MAX, 1)
            mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)


def cards() -> int:
    """How many graphics cards of NVIDIA's PyTorch finds."""
    import torch

    return torch.cuda.device_count()


def nvidia_card(devices: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Whether this machine has a graphics card of NVIDIA's, be it of use to PyTorch or not."""
    try:
        return any(
            (card / "vendor").read_text().strip() == "0x10de" and (card / "class").read_text().startswith("0x03")
            for card in devices.iterdir()
        )
    except OSError:
        return False


def _available(total: int) -> int:
    """What Linux says could be had without swapping; elsewhere all of it."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return total
