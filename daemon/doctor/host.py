"""Checks of this host: disk, device, packages, base model, hub."""

from __future__ import annotations

import asyncio
import getpass
import os
import shlex
import shutil
import socket
import sys
from importlib import metadata
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from daemon import hub
from daemon.asr import families
from daemon.asr.device import cards, nvidia_card
from daemon.asr.errors import ModelError
from daemon.doctor.finding import Fault, NotAsked
from daemon.doctor.patient import Patient
from daemon.learning.registry import room_for
from daemon.sections import TrainingSettings

SHOWN = ("torch", "transformers")
"""Packages whose version is told also where it is well."""
NAME_STATE = 'directory = "/var/lib/ambara"   # under [state] in ambara.toml'
NAME_BASE = 'base = "openai/whisper-small"   # under [model] in ambara.toml'
NAME_LANGUAGE = 'language = "mg"   # under [model] in ambara.toml'
NAME_DEVICE = 'device = "auto"   # under [model] in ambara.toml, with dtype = "auto"'
ONE_PROCESS = "processes = 1   # under [training] in ambara.toml"
FIND_CARD = "nvidia-smi && sudo nvidia-modprobe -u -c=0   # the driver, then its device files"
SET_TOKEN = "export HF_TOKEN=hf_…   # one that may write; or: hf auth login"  # noqa: S105 - no token
NOT_FETCHED = "the model is not on this machine yet"
disk_usage = shutil.disk_usage
installed = metadata.version


def packages(_patient: Patient) -> str:
    """What is installed, against what this package asks for."""
    from packaging.requirements import Requirement

    try:
        asked = [Requirement(line) for line in metadata.requires("ambara") or ()]
    except metadata.PackageNotFoundError:
        raise NotAsked("this is a checkout that was not installed") from None
    wrong = {}
    for each in asked:
        if each.marker is None or each.marker.evaluate():
            found = _version(each.name)
            if found is None or not each.specifier.contains(found, prereleases=True):
                wrong[f"{each.name}{each.specifier}"] = f"{each.name} {found or 'is missing'} (wants {each.specifier})"
    if wrong:
        wanted = " ".join(shlex.quote(each) for each in wrong)
        raise Fault(", ".join(wrong.values()), f"{shlex.quote(sys.executable)} -m pip install {wanted}")
    return ", ".join(f"{name} {_version(name)}" for name in SHOWN)


def _version(name: str) -> str | None:
    try:
        return installed(name)
    except metadata.PackageNotFoundError:
        return None


async def base_model(patient: Patient) -> str:
    """Whether the model is on this machine, or else on the hub. Fetches nothing."""
    model = patient.settings.model
    try:
        patient.base = await asyncio.to_thread(families.cached, model.family, patient.model_options())
    except ModelError:
        if not await asyncio.to_thread(families.offered, model.family, patient.model_options()):
            raise
        return f"the hub has {model.base}, and it is fetched at the first start"
    return f"{model.base} is on this machine"


def fetch_base(patient: Patient) -> str:
    """The command that fetches the model, or the line that names another."""
    model = patient.settings.model
    owner, _, name = model.base.partition("/")
    if not name or not owner or "/" in name or owner in {".", "..", "~"} or Path(model.base).exists():
        return NAME_BASE
    at = f" --revision {shlex.quote(model.revision)}" if model.revision else ""
    return f"hf download {shlex.quote(model.base)}{at} --include '*.safetensors*' '*.json' '*.txt'"


async def language(patient: Patient) -> str:
    """Whether the model can be asked for the language."""
    if patient.base is None:
        raise NotAsked(NOT_FETCHED)
    model = patient.settings.model
    code = await asyncio.to_thread(families.language, model.family, patient.model_options(), patient.base)
    return f"the tokenizer knows {code}"


async def device(patient: Patient) -> str:
    """Where the model will run, and whether it fits there."""
    found = await asyncio.to_thread(families.device, patient.settings.model.family, patient.model_options())
    room = f"{found.name}, {found.dtype}, {found.free / 1e9:.1f} of {found.total / 1e9:.1f} GB free"
    if found.name == "cpu" and patient.settings.model.device == "auto" and nvidia_card():
        raise Fault(f"{room}, and PyTorch does not find this machine's NVIDIA card", FIND_CARD)
    # What is free is no measure: a daemon may be at work.
    if patient.base and (weights := _least_memory(patient.base, found.dtype)) > found.total:
        raise Fault(f"{room}: the weights alone take {weights / 1e9:.1f} GB", NAME_BASE)
    return room


async def processes(patient: Patient) -> str:
    """Whether each process of a training has a card of its own. On the CPU there may be as many as one likes."""
    training = patient.settings.training
    if not training.enabled:
        raise NotAsked("training is off in the settings")
    wanted = training.processes
    others = await asyncio.to_thread(_others, training)
    if wanted == 1:
        return f"one process trains{others}"
    found = await asyncio.to_thread(families.device, patient.settings.model.family, patient.model_options())
    if found.name == "cpu":
        return f"{wanted} processes train together, on the CPU{others}"
    there = await asyncio.to_thread(cards) if found.name.startswith("cuda") else 1
    if wanted <= there:
        return f"{wanted} processes train together, each on one of {there} cards{others}"
    step = training.batch_size * training.gradient_accumulation
    most = max(count for count in range(1, max(there, 1) + 1) if step % (count * training.nodes) == 0)
    raise Fault(
        f"{wanted} processes are to train together, each on a card of its own, and this machine has {there}",
        f"processes = {most}   # under [training] in ambara.toml",
    )


def _others(training: TrainingSettings) -> str:
    """What other machines have to do with it. They meet at an address that this one must have."""
    if training.nodes == 1:
        return ""
    if not _is_found_at(urlsplit(f"tcp://{training.rendezvous}").hostname or ""):
        raise Fault(
            f"{training.nodes} machines are to meet at {training.rendezvous}, where the others do not find this one",
            'rendezvous = "10.0.0.1:29500"   # under [training]: an address that `ip address` shows here',
        )
    return f", on each of {training.nodes} machines that meet at {training.rendezvous}"


def _is_found_at(host: str) -> bool:
    """Whether a host is this one, and not only to itself."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
        return not ip_address(address[0]).is_loopback
    except (OSError, ValueError):
        return False


def state(patient: Patient) -> str:
    """Whether what outlives a restart can be written, by whoever asks. Makes nothing: it would belong to the wrong
    user."""
    directory = patient.settings.state.directory.absolute()
    place = _nearest(directory)
    if not place.is_dir():
        raise Fault(f"{place} is a file, and the state directory would be in it", NAME_STATE)
    if not os.access(place, os.W_OK | os.X_OK):
        user, where = shlex.quote(getpass.getuser()), shlex.quote(str(directory))
        raise Fault(f"{user} may not write to {place}", f"sudo install -d -m 700 -o {user} {where}")
    return f"{directory} can be written"


def disk(patient: Patient) -> str:
    """Room for a training: three models."""
    if patient.base is None:
        raise NotAsked(NOT_FETCHED)
    directory = patient.settings.state.directory.absolute()
    free = disk_usage(_nearest(directory)).free
    need = room_for(patient.base)
    if free >= need:
        return f"{free / 1e9:.1f} GB free for {directory}; a training takes {need / 1e9:.1f}"
    if not patient.settings.training.enabled:
        raise NotAsked(f"{free / 1e9:.1f} GB free, and training is off in the settings")
    raise Fault(
        f"{free / 1e9:.1f} GB free for {directory}, and a training takes {need / 1e9:.1f}",
        f"du -xh {shlex.quote(str(_nearest(directory)))} | sort -h | tail   # what to remove; or: {NAME_STATE}",
    )


async def hub_token(patient: Patient) -> str:
    """Whether a model could be pushed, where that is on. Makes no repository."""
    repo = patient.settings.training.push_to_hub
    if not repo:
        raise NotAsked("nothing is pushed to a hub")
    who = await asyncio.to_thread(hub.check_token, repo, None)
    return f"the token of {who} may write"


def _least_memory(base: Path, dtype: str) -> int:
    """Bytes that the weights take at the very least: a file may hold them in 32 bits and the device in 16."""
    on_disk = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    return on_disk // (4 if dtype == "int8" else 2 if "16" in dtype else 1)


def _nearest(path: Path) -> Path:
    """The path itself, or the nearest above it that exists."""
    return next(each for each in (path, *path.parents) if each.exists())
