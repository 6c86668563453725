"""`ambara why` as a process of its own, on a database that a person could have brought about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
from daemon_process import ambara, write_config

Db = psycopg.Connection[tuple[Any, ...]]

CORRECTED = """
with r as (insert into runs (label) values ('r') returning id)
insert into clips (run_id, file_name, source_file, status, corrected_transcription, duration_sec)
select id, n::text, 'tape ' || n %% %s, 'corrected', 'words ' || n, 6 from r, generate_series(1, %s) n
"""


def why(stack: Any, folder: Path) -> dict[str, Any]:
    done = ambara(stack, folder, "why", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def beat(db: Db, worker: str, **state: Any) -> None:
    db.execute("select ambara_beat(%s, %s)", [worker, json.dumps(state)])


def test_an_empty_project(db: Db, clean_stack: Any, tmp_path: Path) -> None:
    answer = why(clean_stack, tmp_path)
    assert answer["drafting"] == "no model version is live yet"
    assert answer["training"] == "nobody has corrected a clip yet"
    assert answer["promotion"] == "there is no candidate: training makes one"
    assert answer["drafts"] == "no version was live before this one"
    assert answer["daemons"] == []
    shown = ambara(clean_stack, tmp_path, "why")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert [line.split(maxsplit=1)[0] for line in shown.stdout.splitlines()] == [
        "drafting",
        "training",
        "promotion",
        "drafts",
        "no",
    ]
    assert "no daemon is running" in shown.stdout.splitlines()[-1]


def test_the_bar_of_this_hosts_settings(db: Db, clean_stack: Any, tmp_path: Path) -> None:
    db.execute(CORRECTED, [2, 27])
    db.execute("insert into training_recordings (recording, side) values ('tape 0', 'held-out'), ('tape 1', 'train')")
    assert why(clean_stack, tmp_path)["training"] == "14 of 50 new corrections (1.4 of 10.0 minutes)"
    write_config(tmp_path, training={"enabled": True, "min_new_clips": 20, "min_new_minutes": 1.5})
    assert why(clean_stack, tmp_path)["training"] == "14 of 20 new corrections (1.4 of 1.5 minutes)"
    write_config(tmp_path, training={"enabled": False})
    assert "switched off" in why(clean_stack, tmp_path)["training"]
    write_config(tmp_path, training={"enabled": True, "min_new_clips": 10})
    assert "no daemon is running" in why(clean_stack, tmp_path)["training"]
    beat(db, "host-1")
    assert why(clean_stack, tmp_path)["training"] is None
    assert "training   nothing stands in the way: a run begins" in ambara(clean_stack, tmp_path, "why").stdout


def test_one_recording_is_nothing_to_judge_by(db: Db, clean_stack: Any, tmp_path: Path) -> None:
    db.execute(CORRECTED, [1, 3])
    assert "no held-out recording yet" in why(clean_stack, tmp_path)["training"]


def test_drafting_and_what_daemons_say(db: Db, clean_stack: Any, tmp_path: Path) -> None:
    db.execute("select ambara_register_model('base', 'base', '{}', true)")
    assert why(clean_stack, tmp_path)["drafting"] == "no clip wants a draft"
    db.execute(
        "with r as (insert into runs (label) values ('r') returning id) "
        "insert into clips (run_id, file_name) select id, 'a' from r"
    )
    assert "no daemon is running" in why(clean_stack, tmp_path)["drafting"]
    beat(db, "host-3")
    db.execute("update ambara_daemons set seen_at = now() - interval '400 s'")
    assert "no daemon is running" in why(clean_stack, tmp_path)["drafting"]
    beat(db, "host-1", blocked="version 2 is live\x1b[2J, and this daemon has version 1 loaded")
    beat(db, "host-2")
    answer = why(clean_stack, tmp_path)
    assert answer["drafting"] is None
    told = {each["worker"]: each["blocked"] for each in answer["daemons"]}
    assert "not drafting: version 2 is live" in told["host-1"]
    assert told["host-2"] is None
    assert told["host-3"].startswith("silent for 4")
    shown = ambara(clean_stack, tmp_path, "why").stdout
    assert "drafting   nothing stands in the way" in shown
    assert "host-2: nothing stands in its way" in shown
    assert "\x1b" not in shown


def test_a_failure_is_named_while_it_cools_down(db: Db, clean_stack: Any, tmp_path: Path) -> None:
    db.execute(CORRECTED, [2, 200])
    db.execute("insert into training_recordings (recording, side) values ('tape 0', 'held-out'), ('tape 1', 'train')")
    db.execute("insert into model_versions (name, fingerprint, kind, stage) values ('t', 'u', 'trained', 'rejected')")
    db.execute(
        "insert into training_runs (version_id, status, reason, ended_at) "
        "select id, 'failed', 'out of memory', now() - interval '3 min' from model_versions"
    )
    said = why(clean_stack, tmp_path)["training"]
    assert said.startswith("cooling down for 12 min after run")
    assert said.endswith("out of memory")


def test_a_candidate_that_is_elsewhere(db: Db, clean_stack: Any, tmp_path: Path) -> None:
    db.execute("select ambara_register_model('base', 'base', '{}', true)")
    db.execute("insert into model_versions (name, fingerprint, kind, stage) values ('t', 'u', 'trained', 'candidate')")
    assert "is not on this host" in why(clean_stack, tmp_path)["promotion"]
