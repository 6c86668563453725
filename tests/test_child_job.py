"""Jobs as files: what comes back, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from child_bench import evaluate_job, train_job

from daemon.errors import TemporaryError
from daemon.learning.job import read


def test_a_job_comes_back_as_it_was_written(tmp_path: Path) -> None:
    jobs = (
        train_job(tmp_path / "été", tmp_path, arguments={"seed": 3, "note": "ʻ"}),
        evaluate_job(tmp_path, tmp_path),
        evaluate_job(tmp_path, tmp_path, anchor=tmp_path),
    )
    (tmp_path / "job.json.part").write_text("half")
    for job in jobs:
        path = job.write(tmp_path / "job.json")
        assert read(path) == job
        assert path.stat().st_mode & 0o777 == 0o600
        assert [path.name for path in tmp_path.iterdir()] == ["job.json"]
    with pytest.raises(TemporaryError):
        jobs[0].write(tmp_path / "nowhere" / "job.json")


@pytest.mark.parametrize(
    "change",
    [
        {"job": "dance"},
        {"job": "evaluate"},
        {"family": None},
        {"family": 3},
        {"settings": []},
        {"data": ""},
        {"data": None},
        {"resume": 1},
        {"processes": True},
        {"nodes": "2"},
        {"rendezvous": None},
        {"key": "more"},
    ],
)
def test_a_job_that_is_not_quite_one_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = train_job(tmp_path, tmp_path).write(tmp_path / "job.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match="no job"):
        read(path)


def test_a_comparison_of_what_is_no_model_is_refused(tmp_path: Path) -> None:
    path = evaluate_job(tmp_path, tmp_path).write(tmp_path / "job.json")
    good = json.loads(path.read_text())
    for change in ({"live": {}}, {"candidate": {"family": "whisper"}}, {"against": True}, {"confidence": "0.9"}):
        path.write_text(json.dumps(good | change))
        with pytest.raises(ValueError, match="no job"):
            read(path)
    for text in ("", "[]", "{}", "null"):
        path.write_text(text)
        with pytest.raises(ValueError, match="no job"):
            read(path)
