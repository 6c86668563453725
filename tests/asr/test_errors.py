"""Whose fault it is that a model does not load or hear: its own, or the machine's."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from daemon.asr.errors import ModelError, of_the_machine, out_of_memory
from daemon.asr.whisper import load
from daemon.asr.whisper.config import WhisperSettings
from daemon.errors import machine_trouble
from daemon.learning import child
from daemon.local.tiny import BASE

MEMORY = (
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"),
    RuntimeError("CUDA failed with error out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
)
MACHINE = (
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EIO, "I/O"),
    OSError(errno.EMFILE, "files"),
    RuntimeError("CUDA failed with error unspecified launch failure"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    Exception("Too many open files (os error 24)"),
)
NEITHER = (
    ValueError("out of memory, says a text"),
    RuntimeError("a shape"),
    OSError("no errno"),
    FileNotFoundError(errno.ENOENT, "x"),
    OSError("No such file (os error 2)"),
)


@pytest.mark.parametrize("error", MEMORY, ids=repr)
def test_memory(error: Exception) -> None:
    assert out_of_memory(error)
    assert of_the_machine(error)
    assert str(machine_trouble(error)) == "This machine has no memory left for the model."


def test_an_allocation_that_cannot_be_had_is_told() -> None:
    """By the library itself, and not by a text that was true once."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 55)
    assert out_of_memory(caught.value)


@pytest.mark.parametrize("error", MACHINE, ids=repr)
def test_the_machine(error: Exception) -> None:
    assert not out_of_memory(error)
    assert of_the_machine(error)
    assert str(getattr(error, "strerror", type(error).__name__)) in str(machine_trouble(error))
    assert child._explained(error)[0] == ("disk-full" if error is MACHINE[0] else "machine")


@pytest.mark.parametrize("error", NEITHER, ids=repr)
def test_neither(error: Exception) -> None:
    assert not of_the_machine(error)
    assert machine_trouble(error) is None


@pytest.mark.parametrize("error", [*MEMORY, *MACHINE, *NEITHER], ids=repr)
@pytest.mark.parametrize("what", ["open_model", "open_processor"])
def test_weights_are_not_called_broken_for_what_the_machine_lacks(
    what: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(load, what, fail)
    with pytest.raises(type(error) if of_the_machine(error) else ModelError) as caught:
        load.load_transcriber(WhisperSettings(model=str(Path(BASE)), device="cpu"))
    assert not of_the_machine(error) or caught.value is error
