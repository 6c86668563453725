"""What `ambara status` shows of the learning loop; everything out of the database is text."""

from __future__ import annotations

import pytest

from daemon.cli import status_view

ACTIVE = {"run": 4, "version": 9, "worker": "host-[red]1[/red]\x1b[2J", "abandoned": False}
COMPARED = {"against": 3, "clips": 120, "recordings": 9, "words": 900, "live_wer": 0.41, "candidate_wer": 0.287}


def shown(capsys: pytest.CaptureFixture[str], **found: object) -> str:
    status_view.show({"queue": {}, "published": ["clips", "ambara_daemons"], **found}, "http://x")
    return " ".join(capsys.readouterr().out.split())


def test_a_run_under_way(capsys: pytest.CaptureFixture[str]) -> None:
    detail = {"phase": "training", "step": 30, "steps": 1200, "loss": 1.23456, "wer": 0.345, "seconds_left": 840}
    out = shown(capsys, training={"active": ACTIVE | {"detail": detail}})
    assert "training run 4 makes v9 on host-[red]1[/red]�[2J, training, step 30 of 1,200, loss 1.235" in out
    assert "word error rate 34.5%, 14 min left" in out
    out = shown(capsys, training={"active": ACTIVE | {"detail": {"phase": "data", "seconds_left": 12.4}}})
    assert "data, 12 s left" in out
    assert "goes on soon" in shown(capsys, training={"active": ACTIVE | {"abandoned": True, "worker": None}})


def test_the_last_run(capsys: pytest.CaptureFixture[str]) -> None:
    last = {"run": 3, "version": 8, "status": "failed", "reason": "[b]out of memory[/b]", "clips": 1400}
    out = shown(capsys, training={"last": last | {"ended_at": "2026-11-23T04:05:06+00:00"}, "asked": True})
    assert "run 3 (v8) failed 2026-11-23 04:05, 1,400 clips: [b]out of memory[/b]; asked for by a person" in out
    assert "run 3 (v8) finished" in shown(capsys, training={"last": last | {"status": "finished", "ended_at": None}})
    assert "no run yet" in shown(capsys, training={"last": None})
    assert "no run yet" in shown(capsys)


def test_the_candidate(capsys: pytest.CaptureFixture[str]) -> None:
    found = {"version": 9, "name": "trained-0009", "since": "2026-11-23 04:05:06", "comparison": None}
    assert "v9 trained-0009, since 2026-11-23 04:05, not compared yet" in shown(capsys, candidate=found)
    out = shown(capsys, candidate=found | {"comparison": COMPARED})
    assert "word error rate 41.0% -> 28.7% on 120 held-out clips against v3" in out
    assert "candidate none" in shown(capsys, candidate=None)
