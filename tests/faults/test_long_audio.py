"""Clips that last for minutes and hours beside clips that last for seconds."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from fault_record import Fault
from hostile_audio import Memory
from scene import HEALED_S, PROMPT, RUNS, Scene
from warm_start import Nest
from witness import scalar

from daemon.asr.transcriber import SAMPLE_RATE
from daemon.local.speech import speak_corpus, wav_bytes

SHORT_CLIPS = 50
LATE_CLIPS = 8
LIARS = 8
TELLS = {**PROMPT, "batch_clips": 16, "batch_seconds": 30}
LONG_S = 600.0
"""Guard: how long an hour of audio takes is the machine's affair, and no promise."""
MEGABYTES_PER_S = 4 * SAMPLE_RATE / 1e6
MODEL_MB = 80.0
"""What the model and its guards take while they are at work, with what the allocator keeps of it."""


@pytest.mark.fault("F27", "long-audio")
async def test_a_clip_of_hours_holds_nobody_up(fault: Fault, scene: Scene, nest: Nest) -> None:
    """The long ones were there first. One is longer than any may be, the other is not."""
    minutes = fault.size(full=25, short=3)
    fault.injected(f"a clip of 3 h, one of {minutes} min, then {SHORT_CLIPS} short ones in one statement")
    too_long, allowed = f"{RUNS[0]}/clips/hours.wav", f"{RUNS[0]}/clips/minutes.wav"
    _hours(scene.folder / "run" / "clips" / "hours.wav", 3)
    _minutes(scene.folder / "run" / "clips" / "minutes.wav", minutes)
    with psycopg.connect(scene.stack.db_url, autocommit=True) as db:
        rows = {too_long: 3 * 3600, allowed: minutes * 60}
        long = dict(zip(rows, _insert(db, rows), strict=True))
        scene.without_audio.update(long.values())
        scene.insert_at_once(SHORT_CLIPS)
        with nest.in_scene(scene, "daemon", drafting={**PROMPT, "batch_clips": 16}) as daemon:
            await scene.drafted(HEALED_S, name="the short ones within 60 s")
            scene.without_audio.discard(long[allowed])
            began = time.monotonic()
            await scene.drafted(LONG_S, name="the long one that is allowed")
            fault.observe(f"the {minutes} min were drafted {time.monotonic() - began:.1f} s after the short ones")
            query = "select reason from draft_state where clip_id = %s"
            reason = db.execute(query, [long[too_long]]).fetchone()
            fault.holds("3 h refused by rule", [] if reason == ("audio-too-long",) else [reason])
            scene.end(daemon)


@pytest.mark.fault("F27", "rows-that-lie")
async def test_rows_that_lie_about_minutes_hold_nobody_up(fault: Fault, scene: Scene, nest: Nest) -> None:
    """Nobody enforces `duration_sec`: what is held and what goes to the device goes by what was heard."""
    minutes, talked = fault.size(full=10, short=5), fault.size(full=10, short=1)
    fault.injected(
        f"{LIARS} clips of {minutes} min whose rows say 2 s, then {SHORT_CLIPS} short ones in one statement, and "
        f"{LATE_CLIPS} while the long ones are drafted"
    )
    names = [f"{RUNS[0]}/clips/liar_{number}.wav" for number in range(LIARS)]
    _minutes(scene.folder / "run" / "clips" / "liar_0.wav", minutes, talked)
    for name in names[1:]:
        os.link(scene.folder / "run" / "clips" / "liar_0.wav", scene.folder / "run" / name.partition("/")[2])
    with (
        psycopg.connect(scene.stack.db_url, autocommit=True) as db,
        nest.in_scene(scene, "daemon", drafting=TELLS) as daemon,
    ):
        scene.insert(16)
        await scene.drafted(HEALED_S, name="some before")
        memory = Memory(daemon.child.pid)
        liars = _insert(db, dict.fromkeys(names, 2.0))
        scene.without_audio.update(liars)
        scene.insert_at_once(SHORT_CLIPS)
        await scene.drafted(HEALED_S, name="the short ones within 60 s")
        scene.insert_at_once(LATE_CLIPS)
        await scene.drafted(HEALED_S, name="short ones that came later within 60 s")
        query = "select count(*) from drafts where clip_id::text = any (%s)"
        long_before = scalar(db, query, liars)
        fault.observe(f"{long_before} of the long ones were drafted before these")
        fault.holds("no queue behind the long ones", [long_before] if long_before == LIARS else [])
        scene.without_audio.clear()
        began = time.monotonic()
        await scene.drafted(LONG_S, name="those whose rows lie")
        fault.observe(f"the long ones were drafted {time.monotonic() - began:.1f} s after the short ones")
        # One on the device or decoded, one that is being decoded, and a batch of short ones beside each.
        most = MODEL_MB + 2 * MEGABYTES_PER_S * (minutes * 60 + TELLS["batch_seconds"])
        fault.observe(f"the daemon at its highest: +{memory.grown_mb:.0f} MB of {most:.0f}")
        fault.holds("memory bounded by real lengths", [memory.grown_mb] if memory.grown_mb > most else [])
        scene.end(daemon)


def _insert(db: psycopg.Connection[Any], seconds: Mapping[str, float]) -> list[str]:
    """Clips of one run, by name, with what their rows tell. Returns their ids."""
    db.execute("insert into runs (id, label) values (%s, 'long') on conflict do nothing", [RUNS[0]])
    return [
        str(row[0])
        for name, told in seconds.items()
        for row in db.execute(
            "insert into clips (run_id, file_name, draft_transcription, duration_sec) "
            "values (%s, %s, 'stock draft', %s) returning id",
            [RUNS[0], name.partition("/")[2], told],
        )
    ]


def _hours(path: Path, hours: int) -> None:
    """Silence without a byte on the disk: 8 bits at 8 kHz, so that it is its length that is refused, not its size."""
    size = hours * 3600 * 8000
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8, b"data", size
    )
    path.write_bytes(header)
    os.truncate(path, len(header) + size)


def _minutes(path: Path, minutes: int, talked: int | None = None) -> None:
    """Somebody who talks for minutes, and if `talked` is less, says nothing for the rest of them."""
    spoken = np.concatenate([each.audio for each in speak_corpus("A", 40, seed=507)])
    audio = np.resize(spoken, minutes * 60 * SAMPLE_RATE)
    audio[(talked or minutes) * 60 * SAMPLE_RATE :] = 0
    path.write_bytes(wav_bytes(audio))
