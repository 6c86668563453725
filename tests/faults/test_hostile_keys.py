"""Keys that are refused, and the search itself: it finds a key in every shape."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import pytest
from daemon_process import ambara
from fault_record import Fault
from hostile_keys import Project, another_key, in_a_file
from hostile_secrets import leaks

from daemon.errors import EXIT_CONFIGURATION
from daemon.local.stack import LocalStack


@pytest.mark.fault("I6", "secrets-search")
def test_the_search_finds_every_shape(fault: Fault, local_stack: LocalStack, tmp_path: Path) -> None:
    """And nothing in innocent words, nor in another key of the same project."""
    key = another_key(local_stack, "shapes")
    mark = key.rpartition(".")[2]
    raw = key.encode()
    shapes = {"raw": key, "mark": mark, "a piece": mark[9:33], "in an address": quote(key, safe=""), "hex": raw.hex()}
    for before in range(3):
        shapes[f"base64, {before} on"] = base64.b64encode(b"u" * before + raw + b" and on").decode()
        shapes[f"base64 for addresses, {before} on"] = base64.urlsafe_b64encode(b"u" * before + raw).decode()
    fault.injected(f"the key in {len(shapes)} shapes, in a text, a file, a file's name, a command line, an environment")
    missed = [name for name, text in shapes.items() if not leaks(key, texts={"line": f"<<{text}>>"})]
    (tmp_path / "deep" / mark).mkdir(parents=True)
    missed += ["a name"] if not leaks(key, paths=[tmp_path]) else []
    (tmp_path / "deep" / "file").write_bytes(b"\0" * 9_000 + raw)
    missed += ["a file"] if not leaks(key, paths=[tmp_path / "deep" / "file"]) else []
    command = [sys.executable, "-c", "print(flush=True); import time; time.sleep(60)"]
    for name, more, env in (("a command line", [key], {}), ("an environment", [], {"KEY": key})):
        with subprocess.Popen([*command, *more], env=env, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            missed += [name] if not leaks(key, pids=[os.getpid()]) else []
            child.kill()
    fault.holds("each is found", missed)
    innocent = {"other key": another_key(local_stack, "other"), "words": "token, key and signature " * 999}
    fault.holds("nothing else is", leaks(key, texts=innocent, pids=[os.getpid()]))


WRONG = {
    "signed by another": lambda stack: _resigned(stack.service_role_key),
    "anon": lambda stack: stack.anon_key,
    "half": lambda stack: stack.service_role_key[: len(stack.service_role_key) - 9],
    "two in one": lambda stack: f"{stack.service_role_key} {stack.service_role_key}",
    "publishable": lambda _: "sb_publishable_" + uuid4().hex,
    "no JWT": lambda _: uuid4().hex + uuid4().hex,
}


def _resigned(key: str) -> str:
    head, _, _ = key.rpartition(".")
    return f"{head}.{'A' * 3}{uuid4().hex}{uuid4().hex[:8]}"


@pytest.mark.fault("I6", "secrets-refused")
def test_keys_that_are_refused(fault: Fault, local_stack: LocalStack, tmp_path: Path) -> None:
    """With the traceback that a person can ask for, and the key in the environment and in a file."""
    local_stack.ensure()
    fault.injected(f"{len(WRONG)} wrong keys, in the environment and in a file, with tracebacks")
    seen, codes = [], []
    for number, (name, make) in enumerate(WRONG.items()):
        key = make(local_stack)
        folder = tmp_path / str(number)
        folder.mkdir()
        places = {"environment": {"SUPABASE_SERVICE_ROLE_KEY": key}, "file": in_a_file(folder, key)}
        for place, env in list(places.items())[number % 2 :: fault.size(full=1, short=2)]:
            done = ambara(Project(local_stack.url, ""), folder, "run", AMBARA_DEBUG="1", **env)
            codes += [] if done.returncode == EXIT_CONFIGURATION else [(name, done.returncode)]
            secret = key.split()[0]
            seen += [(name, place, leak) for leak in leaks(secret, texts={"out": done.stdout, "error": done.stderr})]
    fault.holds("I6 no key", seen)
    fault.holds("refused", codes)
