"""The README's lines leave a service that works, and that nobody else can look into."""

from __future__ import annotations

import pwd
import re
import stat
from pathlib import Path
from typing import Any

from booted import ETC, KEY, STATE, Installed, shell, until
from booted_work import drafted, new_clips
from witness import Database


def test_the_lines_lead_to_a_service_at_work(installed: Installed) -> None:
    until(installed.active, "ready, and its reload over")
    assert shell("systemctl is-enabled ambara").strip() == "enabled"
    assert installed.said["sudo ambara doctor"].endswith("\nno fault\n")
    assert re.search(r"Status: \"live v1, 0 pending", installed.said["sudo systemctl status ambara"])
    assert '"event": "ready"' in installed.said["sudo journalctl -u ambara -f -o cat"]
    assert "v1" in installed.said["sudo ambara status"]


def test_the_key_is_roots_and_the_models_are_the_daemons(installed: Installed) -> None:
    def facts(path: Path) -> tuple[str, str]:
        status = path.stat()
        return pwd.getpwuid(status.st_uid).pw_name, oct(stat.S_IMODE(status.st_mode))

    assert facts(KEY) == ("root", "0o600")
    assert facts(ETC / "ambara.toml") == ("root", "0o644")
    assert facts(STATE) == ("ambara", "0o700")
    assert facts(Path("/var/cache/ambara")) == ("ambara", "0o700")
    find = "find /opt/ambara /usr/local/bin/ambara /etc/systemd/system/ambara.service ! -type l -writable"
    assert shell(find, cwd=Path("/")), "root may write there"
    assert not shell(f"setpriv --reuid=ambara --regid=ambara --init-groups {find}", cwd=Path("/"))


def test_more_of_the_environment_stands_in_a_file_of_roots(service: Installed, stack: Any, rows: Database) -> None:
    """The token of the daemon's own role, and beside it what it needs; both the daemon and the command line read it."""
    file = ETC / "environment"
    assert (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) == (0, 0o600)
    KEY.write_text(stack.mint("ambara_daemon") + "\n")
    assert "SUPABASE_ANON_KEY" in shell("sudo ambara status", expect=78)
    file.write_text(f"NO_PROXY=a&b c\nSUPABASE_ANON_KEY={stack.anon_key}\n")
    assert "v1" in shell("sudo ambara status")
    shell("systemctl restart ambara")
    environment = Path(f"/proc/{service.pid}/environ").read_bytes().split(b"\0")
    assert b"NO_PROXY=a&b c" in environment
    assert stack.anon_key not in shell("systemctl show ambara")
    clips = new_clips(rows, 3)
    until(lambda: drafted(rows) == len(clips), "drafted with the token")


def test_the_doctors_remedies_are_for_a_service(service: Installed) -> None:
    KEY.write_text("")
    said = shell("sudo ambara doctor", expect=78)
    assert "sudo install -m 600 /dev/stdin /etc/ambara/supabase_service_role_key" in said
    KEY.write_text(service.key)
    service.settings(model={"base": "noa/whisper-none"})
    said = shell("cd /root && sudo ambara doctor", expect=1)
    assert "unforeseen" not in said
    assert "/etc/ambara/ambara.toml" in said or "hf download" in said


def test_the_user_cannot_log_in_and_may_use_a_graphics_card(installed: Installed) -> None:
    user = pwd.getpwnam("ambara")
    assert user.pw_shell.endswith("nologin")
    assert not Path(user.pw_dir).exists()
    assert "video" in shell("id -nG ambara").split()


def test_the_command_wants_root(installed: Installed) -> None:
    said = shell("setpriv --reuid=nobody --clear-groups /usr/local/bin/ambara status", expect=78, cwd=Path("/"))
    assert said == "ambara: the service's key is root's; run: sudo ambara status\n"


def test_the_installation_wants_what_it_says(installed: Installed) -> None:
    said = shell("setpriv --reuid=nobody --clear-groups make install-service", expect=2)
    assert "sudo make install-service" in said
    assert "there is no python9" in shell("make install-service PYTHON=python9", expect=2)


def test_the_sandbox_is_in_force(installed: Installed) -> None:
    """As the daemon's own processes find it, not as the unit file has it."""
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{installed.pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh")} == {0}
    limits = Path(f"/proc/{installed.pid}/limits").read_text()
    assert re.search(r"Max core file size\s+0\s+0", limits)
    mounts = Path(f"/proc/{installed.pid}/mounts").read_text()
    assert re.search(r"^\S+ / \S+ ro,", mounts, re.MULTILINE), "the system is read-only"
    assert re.search(r"^\S+ /var/lib/ambara \S+ rw,", mounts, re.MULTILINE)


def test_the_key_is_a_credential_that_ends_with_the_service(service: Installed) -> None:
    credential = Path("/run/credentials/ambara.service/supabase_service_role_key")
    read = f"--clear-groups cat {credential}"
    assert shell(f"setpriv --reuid=ambara --regid=ambara {read}", cwd=Path("/")).strip() == service.key
    shell(f"setpriv --reuid=nobody --regid=nogroup {read}", expect=1, cwd=Path("/"))
    environment = Path(f"/proc/{service.pid}/environ").read_bytes()
    assert service.key.encode() not in environment
    assert service.key not in shell("systemctl show ambara")
    shell("systemctl stop ambara")
    assert not credential.exists()


def test_a_boot_does_not_wait_for_it(installed: Installed) -> None:
    """Whose start may take hours, when Supabase is away."""
    assert "multi-user.target" in shell("systemctl show -P After ambara").split()
    assert "ambara.service" in shell("systemctl show -P Wants multi-user.target").split()
    assert "ambara.service" not in shell("systemctl show -P After multi-user.target").split()
