"""The dashboard and the alert rules name what /metrics tells, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import seen
import yaml

from daemon.status.metrics import MOST_REASONS, metrics

FOLDER = Path(__file__).parents[1] / "docs" / "monitoring"
ALERTS, DASHBOARD = FOLDER / "alerts.yml", FOLDER / "grafana.json"
OF_PROMETHEUS = {"up"}
STATES = ("failed", "retrying")


def told() -> set[str]:
    """Every name that a daemon tells when everything is known."""
    lines = metrics(seen.look(), seen.here()).decode().splitlines()
    return {re.split(r"[{ ]", line)[0] for line in lines if not line.startswith("#")}


def names_in(expression: str) -> set[str]:
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|by \([^)]*\)", "", expression)
    return {name for name in re.findall(r"[a-z_]+(?![a-z_(])", bare) if "_" in name or name in OF_PROMETHEUS}


def rules() -> list[dict[str, str]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    return [target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("expression", [rule["expr"] for rule in rules()] + queries())
def test_what_is_asked_for_is_told(expression: str) -> None:
    named = names_in(expression)
    assert named
    assert named <= told() | OF_PROMETHEUS


def test_labels_in_conditions_are_told() -> None:
    lines = metrics(seen.look(), seen.here()).decode()
    for expression in [rule["expr"] for rule in rules()] + queries():
        for name, conditions in re.findall(r"(ambara_\w+)\{([^}]*)\}", expression):
            for label in re.findall(r'(\w+)=~?"', conditions):
                assert label in ("instance", "job") or re.search(rf'^{name}\{{[^}}]*{label}="', lines, re.MULTILINE), (
                    expression
                )


def test_labels_do_not_grow_with_what_the_database_says() -> None:
    """Two hundred reasons, some of which are none, become thirty and the rest; and none is lost."""
    reasons = [*(f"reason-{number}" for number in range(200)), seen.NASTY, "A Sentence.", ""]
    failures = [
        {"reason": reason, "state": state, "clips": 2, "message": "m"} for reason in reasons for state in STATES
    ]
    daemons = [{"worker": f"w{number}", "silent_s": 1.0, "state": None} for number in range(50)]
    lines = metrics(seen.look(failures=failures, daemons=daemons), seen.here()).decode().splitlines()
    failed = [line for line in lines if line.startswith("ambara_failed_clips{")]
    assert len(failed) <= MOST_REASONS + len(STATES)
    assert sum(float(line.rpartition(" ")[2]) for line in failed) == 2 * len(failures)
    labelled = "\n".join(line for line in lines if not line.startswith("#"))
    assert set(re.findall(r'[{,](\w+)="', labelled)) == {"lane", "level", "outcome", "reason", "state", "status"}
    assert len(labelled.splitlines()) < 120


def test_every_alert_says_what_to_do() -> None:
    for rule in rules():
        assert rule["annotations"]["summary"], rule  # type: ignore[index]
        assert rule["annotations"]["description"].endswith((".", "`.")), rule  # type: ignore[index]
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}  # type: ignore[index]


def test_panels_do_not_lie_upon_each_other() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.skipif(not shutil.which("promtool"), reason="checked by promtool where Prometheus is installed")
def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    """The dashboard's queries as well: each becomes a rule."""
    of_panels = tmp_path / "panels.yml"
    found = [query.replace("$instance", ".*") for query in queries()]
    asked = [{"record": f"panel:{number}:asked", "expr": query} for number, query in enumerate(found)]
    of_panels.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": asked}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(ALERTS), str(of_panels)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("promtool"), reason="checked by promtool where Prometheus is installed")
def test_promtool_finds_no_fault_with_the_metrics() -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics(seen.look(), seen.here()), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
