"""`ambara doctor` as people meet it: a process, its lines, its exit code."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from daemon_process import ambara, environment, write_config
from typer.testing import CliRunner

from daemon.cli import app
from daemon.cli import doctor as command
from daemon.doctor.finding import Finding, Verdict
from daemon.doctor.rounds import CHECKS
from daemon.local.keys import mint
from daemon.local.stack import LocalStack


def test_all_is_well(local_stack: LocalStack, tmp_path: Path) -> None:
    local_stack.ensure()
    write_config(tmp_path, training={"enabled": True})
    done = ambara(local_stack, tmp_path, "doctor", SUPABASE_DB_URL=local_stack.db_url)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert [line[:19].rstrip() for line in done.stdout.splitlines()[:-2]] == [
        f"{'-' if each.name == 'hub' else '✓'} {each.name}" for each in CHECKS
    ]
    assert done.stdout.endswith("\nno fault\n")
    assert not (tmp_path / "state").exists()


def test_json_and_the_number_of_faults(local_stack: LocalStack, tmp_path: Path) -> None:
    write_config(tmp_path, model={"base": str(tmp_path / "nowhere"), "device": "mps"}, training={"push_to_hub": "a/b"})
    forged = SimpleNamespace(
        url=local_stack.url, service_role_key=mint("another-secret-of-32-characters!!", "service_role")
    )
    done = ambara(forged, tmp_path, "doctor", "--json", HF_TOKEN="")
    found = {each["check"]: each for each in json.loads(done.stdout)}
    red = {name for name, each in found.items() if each["verdict"] == "fault"}
    assert red == {"key", "base model", "device", "hub"}
    assert (done.returncode, done.stderr) == (len(red), "")
    assert found["realtime"]["found"] == "not checked: mend key first"
    assert forged.service_role_key not in done.stdout


def test_settings_that_cannot_be_used_are_the_one_fault(local_stack: LocalStack, tmp_path: Path) -> None:
    anon = SimpleNamespace(url=local_stack.url, service_role_key=local_stack.anon_key)
    done = ambara(anon, tmp_path, "doctor")
    assert (done.returncode, done.stderr) == (78, "")
    assert "✗ settings" in done.stdout
    assert "is the anon key" in done.stdout
    assert "\n    export SUPABASE_SERVICE_ROLE_KEY=…\n" in done.stdout
    assert local_stack.anon_key not in done.stdout
    (tmp_path / "ambara.toml").write_text("[modle]\nx = 1")
    assert ambara(local_stack, tmp_path, "doctor", PYTHONIOENCODING="ascii").stdout.startswith("? settings")
    done = ambara(local_stack, tmp_path, "doctor", "--json")
    assert done.returncode == 78
    [only] = json.loads(done.stdout)
    assert "did you mean [model]?" in only["found"]
    assert only["remedy"].endswith(" ambara.toml")


def test_the_exit_code_is_capped(local_stack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def many(*_: Any, **__: Any) -> list[Finding]:
        return [Finding("x", "y", Verdict.FAULT, "z")] * 61

    monkeypatch.setattr(command, "_examine", many)
    monkeypatch.setenv("AMBARA_CONFIG", str(write_config(tmp_path)))
    done = CliRunner().invoke(app.app, ["doctor"], env=environment(local_stack, tmp_path))
    assert (done.exit_code, "61 faults" in done.stdout) == (60, True)
