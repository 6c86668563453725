"""Versions on disk: whole or refused, whatever is changed in them and wherever their making is cut off."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.asr import families
from daemon.errors import PermanentError
from daemon.learning import registry as module
from daemon.learning.registry import MANIFEST, Registry
from daemon.local.tiny import BASE

FACTS = {"settings": {"epochs": 2}, "training": {"loss": 1.5, "note": "ny teny"}}
PUBLISH = """
import sys
from pathlib import Path
from daemon.learning.registry import Registry

print(flush=True)
for turn in range(1_000_000):
    Registry(Path(sys.argv[1])).publish(7, {"turn": turn})
"""


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "state" / "models")


def made(registry: Registry, version: int) -> Path:
    """What a training leaves behind: a model, its data and its checkpoints."""
    folder = registry.folder(version)
    (folder / "checkpoints" / "step-10").mkdir(parents=True)
    (folder / "checkpoints" / "step-10" / "optimizer.pt").write_bytes(b"\x80pickle")
    (folder / "features").mkdir()
    (folder / "data" / "train").mkdir(parents=True)
    (folder / "data" / "manifest.json").write_text("{}")
    shutil.copytree(BASE, folder / "model", ignore=shutil.ignore_patterns("provenance.json"))
    return folder


def published(registry: Registry, version: int = 7) -> Path:
    folder = made(registry, version)
    registry.publish(version, FACTS)
    return folder


def refused(registry: Registry, version: int = 7) -> str:
    with pytest.raises(PermanentError) as caught:
        registry.check(version)
    return caught.value.reason


def test_a_published_version_serves_and_only_what_it_was_made_with_is_gone(registry: Registry) -> None:
    folder = published(registry)
    assert folder.name == "0007"
    assert registry.numbers() == [7]
    assert registry.whole(7)
    model = registry.check(7)
    families.load("whisper", {"model": str(model), "device": "cpu"})
    assert sorted(path.name for path in folder.iterdir()) == ["data", MANIFEST, "model", "training.json"]
    assert registry.read_facts(7) == FACTS
    assert registry.read_evidence(7) is None
    (folder / "evidence.json").write_text(json.dumps({"clips": []}))
    assert registry.read_evidence(7) == {"clips": []}
    for path in (folder, folder.parent):
        assert path.stat().st_mode & 0o777 == 0o700
    registry.publish(7, FACTS | {"again": True})
    assert registry.check(7)
    assert registry.read_facts(7) == FACTS | {"again": True}


def test_it_is_asked_for_where_it_is_not(registry: Registry) -> None:
    assert registry.numbers() == []
    assert not registry.whole(7)
    assert refused(registry) == "model-missing"
    assert registry.read_facts(7) is None
    registry.retain({1}, newest=99)
    registry.clean({1}, newest=99)
    with pytest.raises(PermanentError) as caught:
        registry.publish(7, FACTS)
    assert caught.value.reason == "model-missing"


def test_every_changed_byte_is_seen(registry: Registry) -> None:
    folder = published(registry)
    for path in (*sorted((folder / "model").iterdir()), folder / "training.json"):
        whole = path.read_bytes()
        at = len(whole) // 2
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert refused(registry) == "model-changed", path
        assert registry.whole(7)  # the quick look goes by sizes
        path.write_bytes(whole[:-1])
        assert refused(registry) == "model-changed", path
        assert not registry.whole(7)
        path.write_bytes(whole)
        assert registry.check(7)


def test_a_file_more_or_less(registry: Registry) -> None:
    folder = published(registry)
    (folder / "model" / "added.json").write_text("{}")
    assert refused(registry) == "model-changed"
    (folder / "model" / "added.json").unlink()
    vocabulary = (folder / "model" / "tokenizer.json").rename(folder / "tokenizer.json")
    assert refused(registry) == "model-changed"
    (folder / "model" / "tokenizer.json").symlink_to(vocabulary)
    assert refused(registry) == "model-unsafe"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "training_args.BIN", "state.pt", "rng_state.pth", "data.pkl"])
def test_a_pickle_is_neither_published_nor_served(registry: Registry, name: str) -> None:
    folder = made(registry, 7)
    (folder / "model" / name).write_bytes(b"\x80\x04.")
    with pytest.raises(PermanentError, match=name):
        registry.publish(7, FACTS)
    assert not registry.whole(7)
    (folder / "model" / name).unlink()
    registry.publish(7, FACTS)
    (folder / "model" / name).write_bytes(b"\x80\x04.")
    with pytest.raises(PermanentError, match=name):
        registry.check(7)


def test_a_model_without_weights_is_not_published(registry: Registry) -> None:
    folder = made(registry, 7)
    (folder / "model" / "model.safetensors").unlink()
    with pytest.raises(PermanentError) as caught:
        registry.publish(7, FACTS)
    assert caught.value.reason == "model-torn"
    assert (folder / "checkpoints").is_dir()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "version": 7, "files": {"model/config.json": 3}}'])
def test_a_manifest_that_is_none(registry: Registry, text: str) -> None:
    folder = published(registry)
    (folder / MANIFEST).write_text(text)
    assert not registry.whole(7)
    assert refused(registry) in ("model-torn", "model-changed")


def test_the_manifest_of_another_version(registry: Registry) -> None:
    folder = published(registry, 6)
    folder.rename(registry.folder(7))
    assert refused(registry) == "model-torn"


def test_publishing_killed_twenty_times_never_leaves_a_torn_version(registry: Registry) -> None:
    """A real process publishes over and over and is killed anywhere; what then passes the check is whole."""
    folder = made(registry, 7)
    weights = {path.name: path.read_bytes() for path in (folder / "model").iterdir()}
    draw = random.Random(7)
    for turn in range(20):
        # The weights of each turn are others, so that those of the turn before do not pass for them.
        changed = weights["model.safetensors"][:-1] + bytes([turn])
        (folder / "model" / "model.safetensors").write_bytes(changed)
        with subprocess.Popen(
            [sys.executable, "-c", PUBLISH, str(folder.parent)], cwd=Path(__file__).parents[1], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(draw.uniform(0, 0.06))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        try:
            model = registry.check(7)
        except PermanentError as error:
            assert error.reason in ("model-torn", "model-changed")  # noqa: PT017
        else:
            facts = registry.read_facts(7)
            assert facts
            assert isinstance(facts["turn"], int)
            assert {path.name: path.read_bytes() for path in model.iterdir()} == weights | {
                "model.safetensors": changed
            }
            assert registry.whole(7)
    registry.publish(7, FACTS)
    assert registry.check(7)


def test_the_manifest_is_the_last_word(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off after each write to the disk in turn: only with the last one is the version whole."""
    folder = made(registry, 7)
    real: Callable[..., None] = module.write_whole
    for after in (0, 1):
        writes: list[Path] = []

        def cut(path: Path, data: bytes, writes: list[Path] = writes, after: int = after) -> None:
            if len(writes) == after:
                raise KeyboardInterrupt
            writes.append(path)
            real(path, data)

        monkeypatch.setattr(module, "write_whole", cut)
        with pytest.raises(KeyboardInterrupt):
            registry.publish(7, FACTS | {"after": after})
        assert not registry.whole(7)
        assert refused(registry) == "model-torn"
        assert (folder / "checkpoints").is_dir(), "what it could go on from is gone"
        monkeypatch.undo()
        registry.publish(7, FACTS)
        (folder / "checkpoints").mkdir()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_a_reason_and_no_crash(registry: Registry) -> None:
    folder = made(registry, 7)
    (folder / "training.json.part").symlink_to("/dev/full")
    with pytest.raises(PermanentError) as caught:
        registry.publish(7, FACTS)
    assert caught.value.reason == "disk-full"
    assert not registry.whole(7)


def test_room_is_three_times_the_weights(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "hub"
    model.mkdir()
    (tmp_path / "blob").write_bytes(bytes(1000))
    (model / "model.safetensors").symlink_to(tmp_path / "blob")  # as in the hub's cache
    (model / "vocab.json").write_bytes(bytes(5000))
    free = {"bytes": 3000}
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free["bytes"]))
    registry.need_room(model)
    free["bytes"] = 2999
    with pytest.raises(PermanentError) as caught:
        registry.need_room(model)
    assert caught.value.reason == "disk-full"
    assert registry.folder(1).parent.stat().st_mode & 0o777 == 0o700


def test_a_disk_without_room(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    os.truncate(tmp_path / "model.safetensors", shutil.disk_usage(tmp_path).free // 2)
    with pytest.raises(PermanentError, match="make room"):
        registry.need_room(tmp_path)


def test_the_weights_of_old_versions_go_and_their_story_stays(registry: Registry) -> None:
    for number in (1, 2, 3, 4):
        folder = published(registry, number)
        (folder / "evidence.json").write_text("{}")
    made(registry, 5)  # began when the others were counted already
    made(registry, 2000)
    registry.retain({2, 4}, newest=4)
    assert registry.numbers() == [1, 2, 3, 4, 5, 2000]
    assert [registry.whole(number) for number in (1, 2, 3, 4)] == [False, True, False, True]
    for number in (1, 3):
        assert sorted(path.name for path in registry.folder(number).iterdir()) == ["evidence.json", "training.json"]
        assert registry.read_facts(number) == FACTS
        assert refused(registry, number) == "model-missing"
    assert registry.check(2)
    assert registry.check(4)
    assert (registry.folder(5) / "checkpoints" / "step-10").is_dir()
    assert not [path for path in registry.folder(1).parent.iterdir() if path.name.startswith(".")]


def test_a_run_that_failed_before_loses_its_data_with_the_next_promotion(registry: Registry) -> None:
    made(registry, 3)
    published(registry, 4)
    registry.retain({4}, newest=4)
    assert not list(registry.folder(3).glob("*/*"))
    assert registry.check(4)


def test_half_removed_weights_are_under_no_name_that_loads(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    published(registry, 1)
    published(registry, 2)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # the process ends here
    registry.retain({2}, newest=2)
    monkeypatch.undo()
    assert refused(registry, 1) == "model-missing"
    assert registry.numbers() == [1, 2]
    leftovers = [path for path in registry.folder(1).parent.iterdir() if path.name.startswith(".")]
    assert leftovers
    registry.clean(set(), newest=99)
    assert not any(path.exists() for path in leftovers)
    assert registry.check(2)


def test_the_start_removes_what_never_came_to_be(registry: Registry) -> None:
    made(registry, 1)
    (registry.folder(1) / ".model.part").mkdir()
    (registry.folder(1) / "train.log").write_text("killed")
    made(registry, 2)
    published(registry, 3)
    (registry.folder(3) / "checkpoints" / "step-10").mkdir(parents=True)  # killed right after it was whole
    registry.clean({2}, newest=99)
    assert [path.name for path in registry.folder(1).iterdir()] == ["train.log"]
    assert (registry.folder(2) / "checkpoints" / "step-10").is_dir()
    assert (registry.folder(2) / "data").is_dir()
    assert registry.check(3)
    assert (registry.folder(3) / "data").is_dir()
    assert not (registry.folder(3) / "checkpoints").exists()


def test_what_another_daemon_began_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """Its number is above all that was known when the clean-up looked."""
    registry = Registry(tmp_path)
    for version in (3, 4):
        (registry.claim(version, f"mark {version}") / "data").mkdir()
    registry.clean(set(), newest=3)
    assert not (registry.folder(3) / "data").exists()
    assert (registry.folder(4) / "data").exists()


def test_a_folder_belongs_to_the_run_that_made_it(tmp_path: Path) -> None:
    """Numbers begin anew in another database; what stands under them from before is neither used nor lost."""
    registry = Registry(tmp_path)
    (registry.claim(2, "first") / "kept").write_text("mine")
    assert (registry.claim(2, "first") / "kept").read_text() == "mine"
    assert [path.name for path in registry.claim(2, "second").iterdir()] == ["owner"]
    assert [path.read_text() for path in tmp_path.glob("0002.of-another-*/0002/kept")] == ["mine"]
    assert registry.numbers() == [2]
