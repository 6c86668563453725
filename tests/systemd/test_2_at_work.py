"""What systemd and people see of a service that works: when it is ready, its line, its journal, new settings."""

from __future__ import annotations

import re

from booted import Installed, shell, until
from booted_work import drafted, new_clips
from witness import Database


def test_it_is_ready_when_the_model_is(service: Installed) -> None:
    shell("systemctl stop ambara")
    before = service.now()
    shell("systemctl start --no-block ambara")
    until(service.starting, "a word while it starts")
    until(service.active, "ready")
    ready_us = int(service.show("ActiveEnterTimestampMonotonic"))
    (model,) = service.logged("model ready", before)
    assert int(model["journal"]["__MONOTONIC_TIMESTAMP"]) <= ready_us
    (said,) = until(lambda: service.logged("ready", before), "the line that is written after it was said")
    assert said["journal"]["_PID"] == str(service.pid)


def test_its_line_says_what_it_does(service: Installed, rows: Database) -> None:
    until(lambda: re.fullmatch(r"live v\d+, 0 pending", service.show("StatusText")), "an empty queue")
    clips = new_clips(rows, 200)
    until(lambda: re.match(r"live v\d+, [1-9]\d* pending", service.show("StatusText")), "a queue")
    until(lambda: drafted(rows) == len(clips), "all drafted")
    until(lambda: re.fullmatch(r"live v\d+, 0 pending", service.show("StatusText")), "an empty queue again")
    assert '"live v' in shell("systemctl status ambara")


def test_its_journal_is_for_programs(service: Installed) -> None:
    shell("systemctl restart ambara")
    lines = shell("journalctl -u ambara _COMM=ambara -o cat --no-pager").splitlines()
    assert lines
    assert all(line.startswith("{") for line in lines), [line for line in lines if not line.startswith("{")]
    assert {entry["journal"]["PRIORITY"] for entry in service.journal() if entry["level"] == "info"} == {"6"}
    assert service.key not in shell("journalctl --no-pager -o verbose --all")


def test_a_reload_takes_up_a_threshold_and_keeps_the_model(service: Installed) -> None:
    pid, before = service.pid, service.now()
    service.settings(training={"enabled": False, "min_new_clips": 7}, log={"format": "auto"})
    shell("systemctl reload ambara")
    (said,) = until(lambda: service.logged("settings taken up", before), "taken up")
    assert "training.min_new_clips" in str(said["changed"]), said
    until(service.active, "the end of the reload")
    assert service.pid == pid
    assert not service.logged("model ready", before)


def test_a_reload_of_nonsense_changes_nothing(service: Installed) -> None:
    pid, before = service.pid, service.now()
    service.settings(training={"min_new_clips": "many"})
    shell("systemctl reload ambara")
    (said,) = until(lambda: service.logged("settings not taken up", before), "a complaint")
    assert "min_new_clips" in said["error"]
    assert said["journal"]["PRIORITY"] == "3"
    until(service.active, "the end of the reload")
    assert service.pid == pid
