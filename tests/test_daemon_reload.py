"""SIGHUP: a real daemon takes up its thresholds, keeps its model, and stays as it is where the file is wrong."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import Any

import psycopg
from daemon_process import daemon_process, write_config
from pydantic import SecretStr
from witness import drafted_by_machine, insert_clips, until, write_run

from daemon.config import Settings
from daemon.local.speech import speak_corpus
from daemon.parts import changed

RUN = "00000000-0000-4000-8000-000000000001"


async def test_a_reload_takes_up_thresholds(clean_stack: Any, tmp_path: Path) -> None:
    names = list(write_run(tmp_path / "run", speak_corpus("A", 5, seed=511), 60))
    small: dict[str, Any] = {"sweep_seconds": 2, "batch_clips": 4, "claim_clips": 4, "batches_per_turn": 1}
    audio = {"run_dirs": {RUN: tmp_path / "run"}}
    address = tmp_path / "notify"
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        with (
            psycopg.connect(clean_stack.db_url, autocommit=True) as db,
            daemon_process(
                clean_stack, tmp_path, env={"NOTIFY_SOCKET": str(address)}, drafting=small, audio=audio
            ) as daemon,
        ):
            insert_clips(db, RUN, names[:20])
            await until(lambda: len(drafted_by_machine(db)) == 20, "drafted in small turns")
            assert max(line["written"] for line in daemon.said("drafted")) == 4

            heard += _messages(manager)  # the kernel keeps ten
            write_config(tmp_path, drafting={**small, "batches_per_turn": 100, "fetches": 2}, audio=audio)
            daemon.child.send_signal(signal.SIGHUP)
            told = daemon.wait_for("settings taken up")
            assert (told["changed"], told["after_a_restart"]) == (["drafting.batches_per_turn"], ["drafting.fetches"])
            heard += _messages(manager)
            insert_clips(db, RUN, names[20:])
            await until(lambda: len(drafted_by_machine(db)) == 60, "drafted")
            # A turn is told of when it is over, which is after its last draft was written.
            await until(lambda: any(line["written"] > 4 for line in daemon.said("drafted")), "a large turn")
            assert len(daemon.said("model ready")) == 1

            heard += _messages(manager)
            (tmp_path / "ambara.toml").write_text("[drafting]\nbatch_clips = 0\n", encoding="utf-8")
            daemon.child.send_signal(signal.SIGHUP)
            refused = daemon.wait_for("settings not taken up")
            assert "batch_clips" in refused["error"]
            assert daemon.stop() == 0
        heard += _messages(manager)
    first = [message.partition("\n")[0] for message in heard if not message.startswith(("EXTEND", "STATUS"))]
    assert first == ["READY=1", "RELOADING=1", "READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
    assert any(message == "STATUS=live v1, 0 pending" for message in heard)


def _messages(manager: socket.socket) -> list[str]:
    manager.setblocking(False)
    heard = []
    try:
        while True:
            heard.append(manager.recv(4096).decode())
    except BlockingIOError:
        return heard


def test_every_key_is_taken_up_at_once_or_at_a_start(tmp_path: Path) -> None:
    """The thresholds of the decisions alone change while it runs."""
    supabase = {"url": "https://abcdefgh.supabase.co", "key": SecretStr("one"), "apikey": SecretStr("one")}
    old = Settings.model_validate({"supabase": supabase, "state": {"directory": tmp_path}})
    new = Settings.model_validate(
        {
            "supabase": {**supabase, "key": SecretStr("two")},
            "state": {"directory": tmp_path},
            "training": {"min_new_clips": 7, "hours": "22-6", "epochs": 3.0},
            "promotion": {"min_gain": 0.02, "confidence": 0.9},
            "log": {"level": "debug"},
        }
    )
    assert changed(old, new) == (
        ["training.min_new_clips", "training.hours", "promotion.min_gain"],
        ["supabase.key", "training.epochs", "promotion.confidence", "log.level"],
    )
    assert changed(old, old) == ([], [])
