"""The lines for an upgrade, the way back, another machine and the removal, as docs/operations.md has them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from booted import ETC, KEY, STATE, Installed, lines_of, shell, until
from booted_work import drafted, new_clips
from witness import Database

OPERATIONS = "docs/operations.md"


@pytest.fixture
def newer(documents: Path) -> Iterator[str]:
    """A checkout that is a version further, as `git pull` leaves it."""
    project = documents / "pyproject.toml"
    before = project.read_text(encoding="utf-8")
    project.write_text(before.replace('version = "0.1.0"', 'version = "0.1.1"', 1), encoding="utf-8")
    yield "0.1.1"
    project.write_text(before, encoding="utf-8")


def carry_out(service: Installed, heading: str) -> None:
    for line in lines_of(OPERATIONS, heading):
        shell(line, given=service.given(line))


def test_up_and_back(service: Installed, rows: Database, newer: str) -> None:
    """While the new version is being installed the old one drafts on; each version runs in turn."""
    old = shell("ambara --version")
    assert newer not in old
    pid = service.pid
    lines = lines_of(OPERATIONS, "### Upgrade")
    assert lines[0] == "git pull"
    for line in lines[1:-1]:
        shell(line, given=service.given(line))
    clips = new_clips(rows, 5)
    until(lambda: drafted(rows) == len(clips), "drafted by the version before, which runs still")
    assert service.pid == pid
    shell(lines[-1])
    assert service.pid != pid
    assert newer in shell("ambara --version")
    assert f"{Path('/opt/ambara/current').resolve()}/bin/python" in Path(f"/proc/{service.pid}/cmdline").read_text()
    clips += new_clips(rows, 5)
    until(lambda: drafted(rows) == len(clips), "drafted by the new version")

    carry_out(service, "### Back to the version before")
    assert shell("ambara --version") == old
    assert f"{Path('/opt/ambara/current').resolve()}/bin/python" in Path(f"/proc/{service.pid}/cmdline").read_text()
    clips += new_clips(rows, 5)
    until(lambda: drafted(rows) == len(clips), "drafted by the version before")


def test_an_installation_that_fails_changes_nothing(service: Installed, documents: Path) -> None:
    """Neither at the first package nor at the last."""

    def installed() -> tuple[list[str], str, int, bool]:
        opt = Path("/opt/ambara")
        listing = sorted(str(each) for each in (*opt.iterdir(), *(opt / "releases").iterdir()))
        unit = Path("/etc/systemd/system/ambara.service").read_text(encoding="utf-8")
        return [*listing, str((opt / "current").resolve())], unit, service.pid, service.active()

    before = installed()
    said = shell("sudo make install-service TORCH=no-such-package TORCH_CPU=no-such-package", expect=2)
    assert "no-such-package" in said
    program = documents / "daemon" / "__main__.py"
    code = program.read_text(encoding="utf-8")
    program.write_text("this is no Python\n", encoding="utf-8")
    try:
        assert "does not start" in shell("sudo make install-service", expect=2)
    finally:
        program.write_text(code, encoding="utf-8")
    assert installed() == before


def test_to_another_machine(service: Installed, rows: Database, tmp_path: Path) -> None:
    """Settings, key and models come along. The other machine is this one, with none of them."""
    disable, pack, unpack, enable = lines_of(OPERATIONS, "### To another machine")

    def models() -> list[str]:
        return sorted(str(each) for each in (STATE / "models").rglob("*"))

    shell(disable, cwd=tmp_path)
    shell(pack, cwd=tmp_path)
    assert (tmp_path / "ambara.tgz").stat().st_mode & 0o777 == 0o600
    before = models()
    assert any(each.endswith("manifest.json") for each in before), "a model that was trained here"
    for place in (ETC, STATE):
        shutil.rmtree(place)
    shell(unpack, cwd=tmp_path)
    assert models() == before
    shell(enable, cwd=tmp_path)
    assert KEY.stat().st_mode & 0o777 == 0o600
    assert STATE.owner() == "ambara"
    clips = new_clips(rows, 5)
    until(lambda: drafted(rows) == len(clips), "drafted after the move")


def test_z_removed(installed: Installed) -> None:
    """The last test: nothing of it is left."""
    installed.drop_in(WatchdogSec="50s")
    carry_out(installed, "### Remove")
    for place in ("/opt/ambara", "/etc/ambara", "/var/lib/ambara", "/var/cache/ambara", "/usr/local/bin/ambara"):
        assert not Path(place).exists(), place
    assert not list(Path("/etc/systemd/system").glob("ambara.service*"))
    assert "could not be found" in shell("systemctl status ambara", expect=4)
    shell("id ambara", expect=1)
