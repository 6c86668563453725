"""A real daemon's page: every address over HTTP, and figures that are those of the database."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from daemon_process import DaemonProcess, ambara, daemon_process
from witness import Database, deserted, drafted_by_machine, insert_clips, scalar, until, write_run

from daemon.local.speech import speak_corpus

RUN = "00000000-0000-4000-8000-000000000001"
OTHER = "00000000-0000-4000-8000-000000000002"
FRESH_S = 60.0
"""Guard: how long the page may show figures that are no longer true, on a busy machine."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("seen")


@pytest.fixture(scope="module")
def said(folder: Path) -> dict[str, str]:
    return write_run(folder / "run", speak_corpus("A", 6, seed=503), 6)


@pytest.fixture(scope="module")
def daemon(stack: Any, folder: Path, said: dict[str, str]) -> Iterator[DaemonProcess]:
    stack.ensure()
    stack.truncate()
    settings = {"status": {"enabled": True, "port": 0}, "audio": {"run_dirs": {RUN: folder / "run"}}}
    with daemon_process(stack, folder, drafting={"sweep_seconds": 1}, **settings) as running:
        yield running
        assert running.running, running.output
        assert running.stop() == 0


@pytest.fixture
def db(stack: Any, daemon: DaemonProcess) -> Iterator[Database]:
    with deserted(stack.db_url) as connection:
        yield connection


@pytest.fixture
def http(daemon: DaemonProcess) -> Iterator[httpx.Client]:
    url = daemon.wait_for("page")["url"]
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        yield client


def shown(http: httpx.Client) -> str:
    return http.get("/").text


def figures(http: httpx.Client) -> dict[str, float]:
    lines = [line for line in http.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_every_address_answers(stack: Any, db: Database, daemon: DaemonProcess, http: httpx.Client) -> None:
    daemon.wait_for("feed", state="live")
    live = scalar(db, "select id from model_versions where stage = 'live'")
    for place, holds in (
        ("/", f"v{live}"),
        (f"/versions/{live}", f"Version {live}"),
        ("/metrics", f"ambara_live_version {float(live)}"),
        ("/healthz", "alive"),
        ("/readyz", "ready"),
        ("/style.css", "prefers-color-scheme"),
    ):
        answer = http.get(place)
        assert (answer.status_code, holds in answer.text) == (200, True), place
        assert stack.service_role_key not in answer.text
        head = http.head(place)
        assert (head.status_code, head.content) == (200, b"")
    assert "Listening?" in http.get("/").text
    assert figures(http)['ambara_feed_state{state="live"}'] == 1
    assert http.post("/").status_code == 405
    assert http.get("/", headers={"Host": "evil.example"}).status_code == 421
    assert http.get("/versions/999999").status_code == 404


async def test_the_metrics_are_the_database_s(
    db: Database, daemon: DaemonProcess, http: httpx.Client, said: dict[str, str]
) -> None:
    """Clips of every kind; what is told is what SQL counts."""
    insert_clips(db, RUN, [*list(said)[:4], "clips/gone.wav"])
    db.execute("update runs set label = '<script>alert(1)</script>'")
    with db.transaction():
        insert_clips(db, OTHER, ["clips/a.wav", "clips/b.wav"])
        db.execute("update clips set corrected_transcription = 'x' where run_id = %s", [OTHER])
        db.execute("update clips set status = 'corrected', corrected_at = now() where file_name = 'clips/a.wav'")
    await until(lambda: len(drafted_by_machine(db)) == 4, "four clips drafted")
    await until(lambda: scalar(db, "select count(*) from draft_state where reason = 'audio-missing'"), "a clip failed")
    truth = {
        'ambara_clips{status="pending"}': "select count(*) from clips where status = 'pending'",
        'ambara_clips{status="corrected"}': "select count(*) from clips where status = 'corrected'",
        'ambara_queue_clips{state="drafted"}': "select count(*) from draft_state where settled_seq is not null",
        'ambara_held_clips{reason="person_at_work"}': "select count(*) from clips where status = 'pending' "
        "and corrected_transcription is not null",
        'ambara_failed_clips{reason="audio-missing",state="retrying"}': "select count(*) from draft_state "
        "where reason = 'audio-missing'",
        "ambara_live_version": "select id from model_versions where stage = 'live'",
        "ambara_live_version_drafts": "select count(*) from drafts d join model_versions v on v.id = d.version_id "
        "where v.stage = 'live'",
        "ambara_versions": "select count(*) from model_versions",
        "ambara_daemons": "select count(*) from ambara_daemons",
        'ambara_drafts_total{outcome="written"}': "select count(*) from drafts",
    }

    def differing() -> dict[str, Any]:
        told = figures(http)
        counted = {name: float(scalar(db, query)) for name, query in truth.items()}
        return {name: (told.get(name), count) for name, count in counted.items() if told.get(name) != count}

    await until(lambda: not differing(), "the same figures", guard_s=FRESH_S, pause_s=1.0)
    page = shown(http)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>" not in page
    assert "the audio is not there yet" in page
    assert not any(name in page for name in ("a.wav", "b.wav", "gone.wav", *said)), "no file's name"


def test_the_backlog_by_run_adds_up_to_the_status(db: Database, said: dict[str, str]) -> None:
    insert_clips(db, RUN, list(said)[:3])
    with db.transaction():
        insert_clips(db, OTHER, ["clips/a.wav", "clips/b.wav"])
        db.execute("update clips set corrected_transcription = 'x' where file_name = 'clips/b.wav'")
    row = db.execute("select ambara_history(), ambara_status()").fetchone()
    assert row is not None
    history, status = row
    sums = {key: sum(run[key] for run in history["runs"]) for key in ("waiting", "drafted", "failed", "held")}
    queue = status["queue"]
    assert sums["waiting"] == sum(queue.get(state, 0) for state in ("ready", "claimed", "retrying"))
    assert (sums["drafted"], sums["failed"]) == (queue.get("drafted", 0), queue.get("failed", 0))
    assert sums["held"] == sum(status["held"].values()) == 1
    assert sum(sums.values()) == 5
    assert history["other_runs"] == 0


def test_corrections_and_waits_by_day(db: Database, said: dict[str, str]) -> None:
    insert_clips(db, RUN, list(said)[:3])
    db.execute("update clips set status = 'corrected', corrected_transcription = 'x', corrected_at = now()")
    db.execute("update clips set corrected_at = now() - interval '90 days' where file_name = %s", [min(said)])
    history = scalar(db, "select ambara_history()")
    today = scalar(db, "select (now() at time zone 'UTC')::date::text")
    assert history["corrections"] == [{"day": today, "clips": 2}]


def test_a_port_in_use_keeps_nobody_from_drafting(stack: Any, tmp_path: Path) -> None:
    stack.ensure()
    with socket.create_server(("127.0.0.1", 0)) as other:
        status = {"enabled": True, "port": other.getsockname()[1]}
        with daemon_process(stack, tmp_path, status=status) as daemon:
            assert len(daemon.said("no status page")) == 1
            assert "address already in use" in daemon.said("no status page")[0]["error"]
            done = ambara(stack, tmp_path, "status")
            assert done.returncode == 0, done.stderr
            assert daemon.stop() == 0
