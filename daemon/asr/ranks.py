"""The processes that train together: each does its share of every step, and their gradients are added up.

They are numbered from 0, and find number and count where `torchrun` puts them: in RANK, WORLD_SIZE, LOCAL_RANK and
LOCAL_WORLD_SIZE (LOCAL is what is on one machine). One that was started alone is the first of one. The first speaks and
writes for all. Importing this loads no torch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from daemon.asr.training import TrainingError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""The others wait while the first computes spectrograms, however many. Who is gone is noticed by its connection."""


GATHER_S = 600.0
"""So long it is waited for the processes of other machines."""
_LOOK_S = 0.2
READY_S = 60.0
"""So long for all of them, once they have come."""
_CONNECT = timedelta(seconds=5)


class StoppedError(Exception):
    """Somebody wanted an end before all had found each other."""


def join(
    device: str,
    meeting: str | None = None,
    stop: Callable[[], bool] = lambda: False,
    heard: Callable[[int, int], None] = lambda _, __: None,
) -> bool:
    """Wait until all processes have found each other. `device`: the setting.

    `meeting` is how they do: by a file that is not there yet (``file:///a/file``), or, on several machines, at a port
    of the first (``tcp://host:port/name``), where only those of the same name meet; without one they go by MASTER_ADDR
    and MASTER_PORT. `stop` and `heard` (of how many have come to that port) are asked and told meanwhile.

    Returns whether they are connected for good: graphics cards (NCCL) go on opening sockets, processors (gloo) have all
    that they need. Raises `TrainingError` if they do not all come to the port, and `StoppedError`.
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
        store = _gather(meeting, cards, stop, heard) if meeting and meeting.startswith("tcp:") else None
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if cards else "gloo",
            init_method=None if store else meeting or "env://",
            store=store,
            timeout=PATIENCE,
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
        )
        wait()
    return not cards


def _gather(meeting: str, cards: bool, stop: Callable[[], bool], heard: Callable[[int, int], None]) -> Any:
    """What all have in common, once all have come to it. The first holds it."""
    from torch import distributed

    place = urlsplit(meeting)
    host, port = str(place.hostname), int(place.port or 0)
    number, of = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    until = time.monotonic() + GATHER_S

    def wait_on(trouble: str) -> None:
        if stop():
            raise StoppedError
        if time.monotonic() > until:
            raise TrainingError("machines", trouble)
        time.sleep(_LOOK_S)

    common = None
    while common is None:
        try:
            common = distributed.TCPStore(  # type: ignore[attr-defined]
                host, port, is_master=not number, wait_for_workers=False, timeout=_CONNECT
            )
        except RuntimeError as error:
            if not number:
                raise TrainingError(
                    "machines",
                    f"Processes of other machines cannot meet this one at {host}:{port}: "
                    "let rendezvous be an address of this machine and a port that is free.",
                ) from error
            wait_on(f"machine 0 does not answer at {host}:{port}: let its firewall allow the others.")
    common.set_timeout(timedelta(seconds=GATHER_S))
    store = distributed.PrefixStore(place.path.strip("/"), common)  # type: ignore[attr-defined]
    try:
        store.add("cards", int(cards))
        here, told = store.add("here", 1), 0
        while True:
            if here != told:
                heard(here, of)
                told = here
            if here >= of:
                break
            wait_on(
                f"Of {of} processes {here} came to {host}:{port} within {GATHER_S / 60:g} minutes: see that "
                "`ambara join` runs on every other machine and reaches that port."
            )
            here = store.add("here", 0)
        if store.add("cards", 0) not in (0, of):
            raise TrainingError(
                "machines", "Some machines have a graphics card that PyTorch can use, and some have none."
            )
        until = time.monotonic() + READY_S
        ready = store.add("ready", 1)  # who has come may be gone by now
        while ready < of:
            wait_on(f"Of {of} processes {of - ready} were gone when the last one came to {host}:{port}.")
            ready = store.add("ready", 0)
    except RuntimeError as error:
        raise TrainingError("machines", "machine 0 ended before all machines had come.") from error
    return store


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
