"""The processes that train together: each does its share of every step, and their gradients are added up.

They are numbered from 0, and find number and count where `torchrun` puts them: in RANK, WORLD_SIZE, LOCAL_RANK and
LOCAL_WORLD_SIZE. One that was started alone is the first of one. The first speaks and writes for all. Importing this
loads no torch.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from daemon.asr.training import TrainingError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""The others wait while the first computes spectrograms, however many. Who is gone is noticed by its connection."""


def join(device: str, meeting: Path | None = None) -> bool:
    """Wait until all processes have found each other. `device`: the setting.

    `meeting` is a file that is not there yet, by which processes of one machine find each other; without one they go
    by MASTER_ADDR and MASTER_PORT. Returns whether they are connected for good: graphics cards (NCCL) go on opening
    sockets, processors (gloo) have all that they need.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return True
    import torch
    from torch import distributed

    cards = device in ("auto", "cuda") and torch.cuda.is_available()
    if not distributed.is_initialized():
        here = int(os.environ["LOCAL_RANK"])
        if cards and here < torch.cuda.device_count():  # else `check` has a sentence for it
            torch.cuda.set_device(here)
        if not cards:  # to accelerate it would be cpu:0, where transformers 4 can load no checkpoint
            os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if cards else "gloo",
            init_method=f"file://{meeting}" if meeting else "env://",
            timeout=PATIENCE,
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
        )
        wait()
    return not cards


def check(device: torch.device) -> None:
    """Raise `TrainingError` if so many processes cannot train on such a device."""
    import torch

    if count() == 1:
        return
    if device.type not in ("cpu", "cuda"):
        raise TrainingError("settings", f"On the device {device.type} one process trains, and not {count()}.")
    here, cards = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if device.type == "cuda" and here > cards:
        raise TrainingError(
            "settings",
            f"Each of {here} processes needs a graphics card, and this machine has {cards}: "
            f"let at most {cards} of them train.",
        )


def count() -> int:
    """How many train together."""
    from torch import distributed

    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """The number of this one, from 0."""
    from torch import distributed

    return distributed.get_rank() if count() > 1 else 0


def agree(value: T) -> T:
    """What the first process gives, for all. Each has to come here, and waits for the first."""
    if count() == 1:
        return value
    import torch
    from torch import distributed

    box = [value]
    distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def wait() -> None:
    """Wait until all have come here."""
    if count() > 1:
        import torch
        from torch import distributed

        distributed.all_reduce(torch.zeros(1))
