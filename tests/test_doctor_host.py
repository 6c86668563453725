"""`ambara doctor` on this host: each thing is broken once, and told with what mends it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pytest
from doctor_bench import faults, look, made
from hub_server import Repo, hub_server

from daemon.asr import families
from daemon.asr.device import Device, nvidia_card
from daemon.config import Settings
from daemon.doctor import host
from daemon.doctor.rounds import HOST
from daemon.doctor.service import as_installed
from daemon.local.stack import LocalStack
from daemon.local.tiny import BASE


@pytest.fixture
def settings(local_stack: LocalStack, tmp_path: Path) -> Settings:
    return made(local_stack, tmp_path)


BROKEN_SETTINGS: dict[str, tuple[dict[str, Any], str, str]] = {
    # name: (sections of the settings, the check that turns red, a part of what mends it)
    "a language that nobody knows": ({"model": {"language": "tlh"}}, "language", 'language = "mg"   # under [model]'),
    "a device that is not there": ({"model": {"device": "mps"}}, "device", 'device = "auto"   # under [model]'),
    "no such directory": ({"model": {"base": "/nowhere/whisper"}}, "base model", 'base = "openai/whisper-small"'),
    "a model that was never fetched": (
        {"model": {"base": "openai/whisper-none"}},
        "base model",
        "hf download openai/whisper-none --include '*.safetensors*'",
    ),
    "a state directory in a file": ({"state": {"directory": __file__}}, "state directory", 'directory = "/var'),
    "a push without a token": ({"training": {"push_to_hub": "noa/whisper-mg"}}, "hub", "export HF_TOKEN=hf_…"),
}


@pytest.mark.parametrize("name", BROKEN_SETTINGS)
async def test_settings_of_this_host(
    name: str, local_stack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections, red, remedy = BROKEN_SETTINGS[name]
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "stored-token"))
    assert faults(await look(made(local_stack, tmp_path), checks=HOST)) == {}
    found = faults(await look(made(local_stack, tmp_path, **sections), checks=HOST))
    assert found.keys() == {red}
    assert remedy in found[red]


async def test_a_model_that_the_hub_has(
    local_stack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is fetched at the first start: no fault, and nothing is said of what only its files could tell."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_of_noa")
    with hub_server(noa="hf_of_noa") as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        hub.repos["noa/tiny"] = Repo(private=False)
        found = await look(made(local_stack, tmp_path, model={"base": "noa/tiny"}), checks=HOST)
        assert faults(found) == {}
        assert found["base model"].found == "the hub has noa/tiny, and it is fetched at the first start"
        assert {found[name].found for name in ("language", "disk")} == {
            "not checked: the model is not on this machine yet"
        }
        found = await look(made(local_stack, tmp_path, model={"base": "noa/tinny"}), checks=HOST)
        assert faults(found).keys() == {"base model"}
        assert 'no model "noa/tinny"' in found["base model"].found


async def test_a_model_in_the_hubs_cache(
    local_stack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found there without the hub, and what the cache has is what is checked."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "models--noa--tiny"
    snapshot = place / "snapshots" / ("0" * 40)
    shutil.copytree(BASE, snapshot)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(snapshot.name)
    settings = made(local_stack, tmp_path, model={"base": "noa/tiny"})
    assert faults(await look(settings, checks=HOST)) == {}
    (snapshot / "model.safetensors").unlink()
    assert faults(await look(settings, checks=HOST)).keys() == {"base model"}


async def test_a_token_that_may_only_read(
    local_stack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = made(local_stack, tmp_path, training={"push_to_hub": "noa/whisper-mg"})
    token = "hf_SwordfishOfNoaSwordfishOfNoa"
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with hub_server(noa=token) as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        found = await look(settings, checks=HOST)
        assert (faults(found), found["hub"].found) == ({}, "the token of noa may write")
        hub.tokens[token]["role"] = "read"
        found = await look(settings, checks=HOST)
        assert faults(found).keys() == {"hub"}
        assert "may only read" in found["hub"].found
        assert token not in repr(found)
        assert hub.repos == {}


def _little_disk(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(host, "disk_usage", lambda _: SimpleNamespace(free=3_000_000))


def _little_memory(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(families, "device", lambda *_: replace(Device("cuda (toy)", "float16", 0, 0), total=500_000))


def _old_torch(patch: pytest.MonkeyPatch) -> None:
    real = host.installed
    patch.setattr(host, "installed", lambda name: "2.5.1+cpu" if name == "torch" else real(name))


def _card_unseen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(host, "nvidia_card", lambda: True)


BROKEN_AT_THE_SEAM: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str, str, str]] = {
    # name: (what breaks it, the check that turns red, what is found, a part of what mends it)
    "too little disk": (_little_disk, "disk", "0.0 GB free for", "du -xh "),
    "too little memory": (_little_memory, "device", "the weights alone take", 'base = "openai/whisper-small"'),
    "a graphics card that PyTorch does not see": (_card_unseen, "device", "NVIDIA card", "sudo nvidia-modprobe"),
    "a package out of range": (_old_torch, "packages", "torch 2.5.1+cpu (wants", "-m pip install 'torch<3,>=2.6'"),
}


@pytest.mark.parametrize("name", BROKEN_AT_THE_SEAM)
async def test_this_host(name: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks, red, said, remedy = BROKEN_AT_THE_SEAM[name]
    assert faults(await look(settings, checks=HOST)) == {}
    breaks(monkeypatch)
    found = await look(settings, checks=HOST)
    assert faults(found).keys() == {red}
    assert said in found[red].found
    assert remedy in faults(found)[red]


async def test_more_processes_than_cards(
    local_stack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU there may be as many as one likes."""
    settings = made(local_stack, tmp_path, training={"processes": 4, "batch_size": 4})
    found = await look(settings, checks=HOST)
    assert (faults(found), found["processes"].found) == ({}, "4 processes train together, on the CPU")
    monkeypatch.setattr(families, "device", lambda *_: Device("cuda (toy)", "float16", 1 << 40, 1 << 40))
    for there, remedy in ((1, "processes = 1"), (2, "processes = 2"), (3, "processes = 2")):
        monkeypatch.setattr(host, "cards", lambda there=there: there)
        found = await look(settings, checks=HOST)
        assert faults(found) == {"processes": f"{remedy}   # under [training] in ambara.toml"}
        assert found["processes"].found.endswith(f"each on a card of its own, and this machine has {there}")
    monkeypatch.setattr(host, "cards", lambda: 4)
    assert faults(await look(settings, checks=HOST)) == {}
    off = made(local_stack, tmp_path, training={"enabled": False, "processes": 4, "batch_size": 4})
    assert (await look(off, checks=HOST))["processes"].found == "not checked: training is off in the settings"


@pytest.mark.parametrize("where", ["192.0.2.1", "127.0.0.1", "no-such-host.invalid"])
async def test_machines_that_would_not_find_this_one(local_stack: LocalStack, tmp_path: Path, where: str) -> None:
    training = {"nodes": 2, "rendezvous": f"{where}:29500"}
    found = await look(made(local_stack, tmp_path, training=training), checks=HOST)
    assert faults(found).keys() == {"processes"}
    assert found["processes"].found == f"2 machines are to meet at {where}:29500, where the others do not find this one"


async def test_machines_that_find_this_one(
    local_stack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever this test runs there may be no other address than that of the loopback."""
    monkeypatch.setattr(host, "_is_found_at", lambda name: name == "::1")
    training = {"nodes": 2, "rendezvous": "[::1]:29500"}
    found = await look(made(local_stack, tmp_path, training=training), checks=HOST)
    assert found["processes"].found == "one process trains, on each of 2 machines that meet at [::1]:29500"


async def test_a_state_directory_of_somebody_else(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    found = faults(await look(settings, checks=HOST))
    assert found.keys() == {"state directory"}
    assert found["state directory"].startswith("sudo install -d -m 700 -o ")
    assert found["state directory"].endswith(f" {settings.state.directory}")


@pytest.mark.parametrize(
    ("vendor", "kind", "there"),
    [("0x10de", "0x030200", True), ("0x10de", "0x040300", False), ("0x8086", "0x030000", False)],
)
def test_a_graphics_card_of_nvidia(vendor: str, kind: str, there: bool, tmp_path: Path) -> None:
    """Its sound device is none, and neither is a card of somebody else."""
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "vendor").write_text(f"{vendor}\n")
    (tmp_path / "0000:01:00.0" / "class").write_text(f"{kind}\n")
    assert nvidia_card(tmp_path) is there
    assert not nvidia_card(tmp_path / "nowhere")


REMEDIES = {
    "export SUPABASE_SERVICE_ROLE_KEY=…   # the key": "sudo install -m 600 /dev/stdin /etc/ambara/supabase_service",
    "export SUPABASE_URL=https://abc.supabase.co": 'url = "https://abc.supabase.co"   # under [supabase] in /etc',
    "export HF_TOKEN=hf_…   # one that may write": "echo 'HF_TOKEN=hf_…' | sudo tee -a /etc/ambara/environment   # one",
    "SUPABASE_DB_URL=postgresql://… ambara migrate": "read -rs SUPABASE_DB_URL; export SUPABASE_DB_URL; sudo --pres",
    "/opt/ambara/releases/1/bin/python -m pip install x": "sudo /opt/ambara/releases/1/bin/python -m pip install x",
    "${EDITOR:-vi} /etc/ambara/ambara.toml": "sudoedit /etc/ambara/ambara.toml",
    'device = "auto"   # under [model] in ambara.toml': 'device = "auto"   # under [model] in /etc/ambara/ambara.toml',
    "ambara migrate --again": "sudo ambara migrate --again",
    "alter table clips enable row level security;": "alter table clips enable row level security;",
}


@pytest.mark.parametrize("remedy", REMEDIES)
def test_remedies_on_a_machine_where_ambara_is_a_service(remedy: str) -> None:
    assert as_installed(f"-- first\n{remedy}").splitlines()[1].startswith(REMEDIES[remedy])
