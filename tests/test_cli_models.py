"""`ambara models` as a process of its own, over rows and folders as the daemon leaves them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
from daemon_process import ambara
from witness import scalar

from daemon.learning.registry import Registry
from daemon.local.tiny import BASE

Db = psycopg.Connection[tuple[Any, ...]]

GUARDS = [
    {"name": "drafts that loop", "live": 0.01, "candidate": 0.0, "tolerance": 0.02},
    {
        "name": "word error rate of the worst recording (tape [b]4[/b])",
        "live": 0.5,
        "candidate": 0.52,
        "tolerance": 0.05,
    },
]
COMPARED = {
    "against": 1,
    "clips": 120,
    "recordings": 9,
    "words": 900,
    "live_wer": 0.41,
    "candidate_wer": 0.287,
    "gain_low": 0.09,
    "gain_high": 0.15,
    "confidence": 0.95,
    "guards": GUARDS,
}
DETAIL = {
    "comparison": COMPARED,
    "base": "openai/whisper-small",
    "data": {"train": {"clips": 1400, "seconds": 8000.0}, "left_out": {"audio-missing": 3, "split-record": 1}},
    "training": {"epochs": 10, "learning_rate": 0.00001},
}
RATES = {"wer": 0.3, "wer_raw": 0.352, "cer": 0.123}
WAS = {"wer": 0.4, "wer_raw": 0.452, "cer": 0.223}


def clip(number: int, errors: int, said: str) -> dict[str, Any]:
    heard = {"flags": [], "errors": errors, "text": said}
    live = {"flags": ["repetition"], "errors": 4, "text": f"before {number}"}
    known = {"clip_id": f"clip-{number}", "recording": "tape 4", "kind": "extraction", "words": 4}
    return {**known, "reference": f"reference {number}", "live": live, "candidate": heard}


EVIDENCE = {
    "comparison": COMPARED,
    "gain": {"low": 0.09, "high": 0.15},
    "totals": {"all": {"clips": 120, "recordings": 9, "words": 900, "live": WAS, "candidate": RATES}},
    "clips": [clip(1, 0, "fine"), clip(2, 4, "[red]worst[/red]\x1b[2J"), clip(3, 2, "middling")],
}


@pytest.fixture
def project(db: Db, clean_stack: Any, tmp_path: Path) -> Any:
    """Version 1, a base, is live; version 2 is trained, lies here, and is a candidate."""
    db.execute("select ambara_register_model('openai/whisper-small', 'base', '{}', true)")
    db.execute(
        "insert into model_versions (name, fingerprint, kind, stage, detail) "
        "values ('trained-[b]0002[/b]', 'weights', 'trained', 'candidate', %s)",
        [json.dumps(DETAIL)],
    )
    registry = Registry(tmp_path / "state" / "models")
    shutil.copytree(BASE, registry.folder(2) / "model")
    registry.publish(2, {"training": DETAIL["training"]})
    (registry.folder(2) / "evidence.json").write_text(json.dumps(EVIDENCE))
    return clean_stack


def models(project: Any, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = ambara(project, folder, "models", *arguments)
    assert "Traceback" not in done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    return done


def refused(project: Any, folder: Path, *arguments: str) -> str:
    """The one sentence of a command that changed nothing."""
    done = models(project, folder, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


def stages(db: Db) -> dict[int, str]:
    return dict(db.execute("select id::int, stage from model_versions").fetchall())


def test_list(db: Db, project: Any, tmp_path: Path) -> None:
    shown = models(project, tmp_path, "list")
    assert (shown.returncode, shown.stderr) == (0, "")
    rows = [" ".join(line.replace("│", " ").split()) for line in shown.stdout.splitlines()]
    live, candidate = (next(row for row in rows if row.startswith(f"{number} ")) for number in (1, 2))
    assert live.startswith("1 openai/whisper-small live 20")
    assert candidate == "2 trained-[b]0002[/b] candidate 41.0% -> 28.7% 0 yes"
    told = json.loads(models(project, tmp_path, "list", "--json").stdout)
    assert [(each["number"], each["stage"], each["here"], each["wer_after"]) for each in told] == [
        (1, "live", None, None),
        (2, "candidate", True, 0.287),
    ]
    shutil.rmtree(tmp_path / "state" / "models" / "0002")
    assert json.loads(models(project, tmp_path, "list", "--json").stdout)[1]["here"] is False


def test_list_of_an_empty_project(clean_stack: Any, tmp_path: Path) -> None:
    done = models(clean_stack, tmp_path, "list")
    assert (done.returncode, "No version yet" in done.stdout) == (0, True)
    assert json.loads(models(clean_stack, tmp_path, "list", "--json").stdout) == []


def test_show_puts_the_evidence_in_words(db: Db, project: Any, tmp_path: Path) -> None:
    done = models(project, tmp_path, "show", "2", "--clips", "2")
    assert (done.returncode, done.stderr) == (0, "")
    shown = " ".join(done.stdout.replace("│", " ").split())
    for said in (
        "Version 2: trained-[b]0002[/b] (trained), candidate",
        "better: word error rate 41.0 % -> 28.7 % on 120 held-out clips of 9 recordings",
        "error rate, as written 45.2% 35.2%",
        "error rate, characters 22.3% 12.3%",
        "drafts that loop 1.0% 0.0% 3.0%",
        "(tape [b]4[/b]) 50.0% 52.0% 55.0%",
        "[red]worst[/red]�[2J",
        "reference 2",
        "before 2",
        "middling",
        "3 clips whose audio file is missing",
        "1 clip whose text is the record of a split chapter",
        "train.clips 1400",
        "epochs 10, learning_rate 1e-05",
        "Trained from openai/whisper-small",
    ):
        assert said in shown
    assert "fine" not in shown
    assert shown.index("worst[/red]") < shown.index("middling")


def test_show_as_json_and_without_evidence(db: Db, project: Any, tmp_path: Path) -> None:
    told = json.loads(models(project, tmp_path, "show", "2", "--json", "--clips", "1").stdout)
    assert [each["clip_id"] for each in told["worst"]] == ["clip-2"]
    assert (told["number"], told["detail"]["base"], told["totals"]["all"]["live"]["cer"]) == (
        *(2, "openai/whisper-small", 0.223),
    )
    bare = models(project, tmp_path, "show", "1")
    assert (bare.returncode, "not been compared" in bare.stdout) == (0, True)
    assert "no version 7" in refused(project, tmp_path, "show", "7")


def test_promote_roll_back_and_back_again(db: Db, project: Any, tmp_path: Path) -> None:
    done = models(project, tmp_path, "promote", "2")
    assert done.returncode == 0, done.stderr
    assert "Version 2 (trained-[b]0002[/b]) is live, in place of version 1. Running daemons follow" in done.stdout
    assert stages(db) == {1: "retired", 2: "live"}
    assert scalar(db, "select reason from model_versions where id = 2") == "promoted by hand"
    assert "live already" in models(project, tmp_path, "promote", "2").stdout
    done = models(project, tmp_path, "rollback")
    assert "Version 1 (openai/whisper-small) is live again, and version 2 is turned down." in done.stdout
    assert stages(db) == {1: "live", 2: "rejected"}
    assert "no version to go back to" in refused(project, tmp_path, "rollback")
    assert models(project, tmp_path, "promote", "2").returncode == 0
    assert stages(db) == {1: "retired", 2: "live"}


def test_no_way_back_to_weights_that_are_gone(db: Db, project: Any, tmp_path: Path) -> None:
    """Retention keeps those of one step back; with a second step no daemon could draft."""
    assert models(project, tmp_path, "promote", "2").returncode == 0
    assert models(project, tmp_path, "promote", "1").returncode == 0
    for folder in tmp_path.rglob("0002/model"):
        shutil.rmtree(folder)
    assert "Version 2 is not on this host" in refused(project, tmp_path, "rollback")
    assert stages(db) == {1: "live", 2: "retired"}


def test_only_what_is_here_and_whole_goes_live(db: Db, project: Any, tmp_path: Path) -> None:
    before = stages(db)
    weights = tmp_path / "state" / "models" / "0002" / "model" / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    assert "2" in refused(project, tmp_path, "promote", "2")
    shutil.rmtree(tmp_path / "state" / "models" / "0002")
    assert "2" in refused(project, tmp_path, "promote", "2")
    assert "no version 7" in refused(project, tmp_path, "promote", "7")
    db.execute(
        "insert into model_versions (name, fingerprint, kind, stage) values ('t', 'untrained:1', 'trained', 'training')"
    )
    refused(project, tmp_path, "promote", "3")
    assert stages(db) == before | {3: "training"}


def test_pin(db: Db, project: Any, tmp_path: Path) -> None:
    done = models(project, tmp_path, "pin", "2")
    assert (done.returncode, "Version 2 is pinned" in done.stdout) == (0, True)
    assert scalar(db, "select array_agg(id) filter (where pinned) from model_versions") == [2]
    assert "not pinned any more" in models(project, tmp_path, "pin", "2", "--off").stdout
    assert scalar(db, "select bool_or(pinned) from model_versions") is False
    assert "no version 7" in refused(project, tmp_path, "pin", "7")


@pytest.mark.parametrize("command", ["list", "show", "promote", "rollback", "pin"])
def test_help_has_an_example(clean_stack: Any, tmp_path: Path, command: str) -> None:
    done = models(clean_stack, tmp_path, command, "--help")
    assert (done.returncode, f"ambara models {command}" in done.stdout) == (0, True)
