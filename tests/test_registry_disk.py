"""Publishing a version: on a full disk, in a process that is killed, in the order that a power cut needs."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.errors import PermanentError
from daemon.learning.registry import MANIFEST, Registry

ROOT = Path(__file__).parents[1]
KILLS = 30
CUT_OFF = """
import os, signal, sys
from pathlib import Path
from daemon.learning.registry import Registry

root, turn, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
lines = 0

def watch(frame, event, argument):
    global lines
    if Path(frame.f_code.co_filename).name not in ("registry.py", "durable.py"):
        return None
    if event == "line":
        lines += 1
        if lines == last:
            os.kill(os.getpid(), signal.SIGKILL)
    return watch

sys.settrace(watch)
Registry(root).publish(7, {"turn": turn})
sys.settrace(None)
print(lines)
"""
FULL = """
import ctypes, json, os, sys
from pathlib import Path
from daemon.errors import PermanentError
from daemon.learning.registry import Registry

place = Path(sys.argv[1])
libc = ctypes.CDLL(None)
user, group = os.geteuid(), os.getegid()
alone = libc.unshare(0x20000) == 0  # a mount namespace; in a user namespace where it takes that
if not alone and libc.unshare(0x10020000) == 0:
    Path("/proc/self/setgroups").write_bytes(b"deny")
    Path("/proc/self/uid_map").write_bytes(f"0 {user} 1".encode())
    Path("/proc/self/gid_map").write_bytes(f"0 {group} 1".encode())
    alone = True
if not alone or libc.mount(b"none", b"/", None, 0x44000, None) != 0:
    sys.exit(77)
if libc.mount(b"tmpfs", bytes(place), b"tmpfs", 0, b"size=1m") != 0:
    sys.exit(77)
registry = Registry(place / "models")
model = registry.folder(7) / "model"
model.mkdir(parents=True)
(model / "config.json").write_text("{}")
(model / "model.safetensors").write_bytes(bytes(100_000))
ballast = place / "ballast"
with ballast.open("wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        pass

def attempt(what):
    try:
        what()
    except PermanentError as error:
        return error.reason
    return "ok"

seen = []
for _ in range(12):  # a page more is free each time
    published = attempt(lambda: registry.publish(7, {"note": "x" * 9_000}))
    seen.append((published, attempt(lambda: registry.check(7)), registry.whole(7)))
    os.truncate(ballast, ballast.stat().st_size - 4096)
print(json.dumps({"seen": seen, "room": attempt(lambda: registry.need_room(model)), "left": sorted(
    path.name for path in registry.folder(7).iterdir())}))
"""


def made(root: Path, turn: int = 0) -> Path:
    """A version's folder with a model whose files say which turn they are of."""
    folder = Registry(root).folder(7)
    (folder / "model").mkdir(parents=True, exist_ok=True)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (folder / "model" / name).write_text(f"{turn:06}")
    return folder


def publish(root: Path, turn: int, last: int) -> subprocess.CompletedProcess[str]:
    """Publish in a process of its own, which kills itself at line `last` of the registry; 0 is never reached."""
    command = [sys.executable, "-c", CUT_OFF, str(root), str(turn), str(last)]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False, timeout=60)


def test_killed_at_any_line_it_is_whole_or_refused(tmp_path: Path) -> None:
    """Each turn has other weights of the same size: what passes the check is of one turn, down to the last file."""
    registry = Registry(tmp_path)
    made(tmp_path)
    lines = int(publish(tmp_path, 0, 0).stdout)
    places = {1, lines, *random.Random(7).sample(range(2, lines), KILLS - 2)}
    accepted = 0
    for turn, place in enumerate(sorted(places), start=1):
        made(tmp_path, turn)
        assert publish(tmp_path, turn, place).returncode == -signal.SIGKILL
        try:
            model = registry.check(7)
        except PermanentError as error:
            assert error.reason in ("model-torn", "model-changed")  # noqa: PT017
            continue
        accepted += 1
        assert {path.read_text() for path in model.iterdir()} == {f"{turn:06}"}
        assert registry.read_facts(7) == {"turn": turn}
        assert registry.whole(7)
    assert 0 < accepted < KILLS


def test_the_disk_has_everything_before_the_manifest_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut loses what was not synced: weights, then names, then the manifest, then the manifest's name."""
    folder = made(tmp_path)
    done: list[Path] = []
    named: dict[str, int] = {}
    fsync, replace = os.fsync, os.replace

    def noted_fsync(number: int) -> None:
        done.append(Path(f"/proc/self/fd/{number}").readlink())
        fsync(number)

    def noted_replace(old: Path, new: Path) -> None:
        named[Path(new).name] = len(done)
        replace(old, new)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    Registry(tmp_path).publish(7, {})
    before, after = done[: named[MANIFEST]], done[named[MANIFEST] :]
    assert set(before) >= {
        *(folder / "model").iterdir(),
        folder / "model",
        folder / "training.json.part",
        folder / f"{MANIFEST}.part",
    }
    assert folder in done[named["training.json"] : named[MANIFEST]], "the manifest may name what has no name yet"
    assert {folder, tmp_path} <= set(after)


def test_a_disk_that_is_full_leaves_no_version_and_takes_it_once_there_is_room(tmp_path: Path) -> None:
    """A real file system of 1 MiB, filled to the last page, then freed page by page."""
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    answer = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False, timeout=60)
    if answer.returncode == 77:
        pytest.skip("this system gives no mount namespace to make a small disk in")
    assert answer.returncode == 0
    told = json.loads(answer.stdout)
    refused = [each for each in told["seen"] if each[0] != "ok"]
    assert 2 <= len(refused) < len(told["seen"]), "the disk was never full, or never had room"
    assert all(each == ["disk-full", "model-torn", False] for each in refused)
    assert told["seen"][len(refused) :] == [["ok", "ok", True]] * (len(told["seen"]) - len(refused))
    assert told["room"] == "disk-full"
    assert told["left"] == [MANIFEST, "model", "training.json"]
