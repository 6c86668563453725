"""Which device a model is put on and what it computes in, with PyTorch's own answers replaced: no GPU is needed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch
from transformers import WhisperConfig

from daemon.asr import families
from daemon.asr.device import Device, measure
from daemon.asr.errors import ModelError
from daemon.asr.training import TrainingError
from daemon.asr.whisper.arguments import precision
from daemon.asr.whisper.config import TrainingSettings, WhisperSettings
from daemon.asr.whisper.load import choose_device, load_transcriber, look_at_device, windows_at_once
from daemon.local.tiny import BASE

GIB = 1 << 30


@pytest.fixture
def present(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with the devices that the parameter names, beside its CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in request.param)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in request.param)


@pytest.mark.parametrize(
    ("present", "best"), [("", "cpu"), ("mps", "mps"), ("cuda", "cuda"), ("cuda mps", "cuda")], indirect=["present"]
)
def test_auto_takes_the_best_device_that_is_there(present: None, best: str) -> None:
    assert choose_device("auto") == torch.device(best)
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("present", "asked", "choices"),
    [("", "cuda", "auto, or cpu"), ("mps", "cuda", "auto, or mps or cpu"), ("cuda", "mps", "auto, or cuda or cpu")],
    indirect=["present"],
)
def test_a_device_that_is_not_there_is_said_plainly(present: None, asked: str, choices: str) -> None:
    with pytest.raises(ModelError, match=f"has no device {asked} that PyTorch can use: choose {choices}"):
        choose_device(asked)
    with pytest.raises(ModelError, match=f"no device {asked}"):
        families.device("whisper", {"model": str(BASE), "device": asked})


@pytest.mark.parametrize("present", ["cuda"], indirect=True)
@pytest.mark.parametrize(("brain", "trains_in"), [(True, "bfloat16"), (False, "float32")])
def test_on_cuda(present: None, brain: bool, trains_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: brain)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (3 * GIB, 8 * GIB))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA T4")
    found = look_at_device(WhisperSettings(str(BASE)))
    assert found == Device("cuda (NVIDIA T4)", "float16", total=8 * GIB, free=3 * GIB)
    assert precision(TrainingSettings(), choose_device("auto")) == trains_in
    assert precision(TrainingSettings(arguments={"fp16": True}), choose_device("auto")) == "float16"
    wish = WhisperSettings(str(BASE), dtype="bfloat16")
    if brain:
        assert look_at_device(wish).dtype == "bfloat16"
    else:
        with pytest.raises(ModelError, match="cannot compute in bfloat16: choose dtype auto or float16"):
            look_at_device(wish)


@pytest.mark.parametrize("present", ["mps"], indirect=True)
def test_on_mps(present: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 12 * GIB)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 5 * GIB)
    assert look_at_device(WhisperSettings(str(BASE))) == Device("mps", "float32", total=12 * GIB, free=7 * GIB)
    assert precision(TrainingSettings(), choose_device("auto")) == "float32"
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 13 * GIB)
    assert measure(torch.device("mps"), "float32").free == 0


def test_on_the_cpu() -> None:
    found = look_at_device(WhisperSettings(str(BASE), device="cpu"))
    assert (found.name, found.dtype) == ("cpu", "int8")
    assert 0 < found.free <= found.total
    assert precision(TrainingSettings(), torch.device("cpu")) == "float32"


def test_a_model_tells_the_memory_of_a_card_and_not_the_machine_s(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_transcriber(WhisperSettings(str(BASE), device="cpu"))
    assert model.memory() is None
    monkeypatch.setitem(model._facts, "device", "cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * GIB, 8 * GIB) if str(device) == "cuda" else 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a card")
    assert model.memory() == (3 * GIB, 8 * GIB)


@pytest.mark.parametrize("present", [""], indirect=True)
def test_a_training_is_refused_a_device_that_is_not_there(present: None) -> None:
    from daemon.asr.whisper.start import open_start

    with pytest.raises(TrainingError, match="has no device mps"):
        open_start(TrainingSettings(base=str(BASE), device="mps"))


@pytest.mark.parametrize(
    ("name", "dtype", "free", "shape", "windows"),
    [
        ("cpu", "float32", 4 * GIB, "small", 16),
        ("mps", "float16", 4 * GIB, "small", 16),
        ("cuda (NVIDIA H200)", "float16", 139 * GIB, "small", 64),
        ("cuda (NVIDIA H200)", "float16", 139 * GIB, "large-v3", 64),
        ("cuda (a card of 8 GiB)", "float16", 7 * GIB, "small", 17),
        ("cuda (a card of 8 GiB)", "float32", 7 * GIB, "small", 8),
        ("cuda (a card of 8 GiB)", "float16", 7 * GIB, "large-v3", 4),
        ("cuda (that others have filled)", "float16", GIB // 4, "large-v3", 1),
    ],
)
def test_as_many_windows_at_once_as_a_card_has_room_for(
    name: str, dtype: str, free: int, shape: str, windows: int
) -> None:
    """A window of whisper-small takes about 110 MB in half precision, one of large-v3 four times as much."""
    width, layers = {"small": (768, 12), "large-v3": (1280, 32)}[shape]
    config = WhisperConfig(d_model=width, decoder_layers=layers, max_source_positions=1500, max_target_positions=448)
    assert windows_at_once(config, Device(name, dtype, total=139 * GIB, free=free)) == windows


ARRAYS = """
import resource, threading
from daemon.asr.device import keep_memory

def fault():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for megabytes in (40, 80, 60):
        b"1" * (megabytes << 20)  # not NumPy's: it asks for pages of 2 MB, which come or do not
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

{keep}
faults = []
for _ in range(2):
    thread = threading.Thread(target=fault)
    thread.start()
    thread.join()
print(*faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such habit")
def test_what_one_batch_frees_is_there_for_the_next() -> None:
    def faults(keep: str) -> list[int]:
        code = ARRAYS.format(keep=keep)
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return [int(each) for each in ran.stdout.split()]

    usual, kept = faults(""), faults("keep_memory()")
    assert usual[1] > 0.5 * usual[0]
    assert kept[1] < 0.1 * usual[1], (usual, kept)


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_threads_that_wait_for_others_sleep_soon_unless_somebody_says_otherwise(
    given: dict[str, str], found: str
) -> None:
    """How much that is worth, `benchmarks/neighbour.py` tells."""
    bare = {name: its for name, its in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    look = "import os, sys, daemon.asr; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], env=bare | given, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [found, "False"]
