"""The demo as a newcomer runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest


@pytest.fixture(scope="module")
def temporary() -> Iterator[Path]:
    """The demo's own temporary folder; PostgreSQL may have to pass through it as another user."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, temporary: Path) -> tuple[dict[str, Any], str]:
    """What `ambara demo` wrote and said."""
    file = tmp_path_factory.mktemp("demo") / "story.json"
    marker = f"demo-{os.getpid()}"
    before = {name: os.environ[name] for name in os.environ if not name.startswith("SUPABASE_")}
    command = [sys.executable, "-m", "daemon", "demo", "--clips", "16", "--json", str(file)]
    run = subprocess.run(
        command,
        env={**before, "DEMO_MARKER": marker, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert [p.cmdline() for p in psutil.process_iter() if _environment(p).get("DEMO_MARKER") == marker] == []
    return json.loads(file.read_text()), run.stdout


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def test_every_eligible_clip_is_drafted_and_no_other(story: tuple[dict[str, Any], str]) -> None:
    record, _ = story
    clips = list(record["clips"].values())
    assert sum(clip["eligible"] for clip in clips) == 16
    assert sum(not clip["eligible"] for clip in clips) == 6
    for clip in clips:
        assert (clip["drafted_at"] is not None) == clip["eligible"]
        assert (clip["text"] is not None) == clip["eligible"]
        assert clip["touched"] == clip["eligible"]
        assert not clip["eligible"] or clip["inserted_at"] < clip["drafted_at"]
    assert record["well"] is True


def test_the_drafts_are_what_was_said(story: tuple[dict[str, Any], str]) -> None:
    """Measured again from the texts, not taken from the demo's own word."""
    from daemon.asr.metrics import word_error_rate

    record, said = story
    drafted = [clip for clip in record["clips"].values() if clip["eligible"]]
    rate = word_error_rate([clip["reference"] for clip in drafted], [clip["text"] for clip in drafted])
    assert rate == pytest.approx(record["wer"], abs=1e-4)
    assert rate < 0.2
    assert all(clip["confidence"] < 0 for clip in drafted)
    assert set(record["seconds"]) == {"speech", "supabase", "daemon", "drafting", "stopping"}
    assert "16 of 16 clips drafted" in said


def test_nothing_is_left_on_the_disk(story: tuple[dict[str, Any], str], temporary: Path) -> None:
    """PyTorch keeps a folder of its own."""
    assert [path.name for path in temporary.iterdir() if not path.name.startswith("torch")] == []
