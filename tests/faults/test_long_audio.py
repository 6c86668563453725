"""Clips that last for hours beside clips that last for seconds."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import numpy as np
import psycopg
import pytest
from fault_record import Fault
from scene import HEALED_S, PROMPT, RUNS, Scene
from warm_start import Nest

from daemon.asr.transcriber import SAMPLE_RATE
from daemon.local.speech import speak_corpus, wav_bytes

SHORT_CLIPS = 50


@pytest.mark.fault("F27", "long-audio")
async def test_a_clip_of_hours_holds_nobody_up(fault: Fault, scene: Scene, nest: Nest) -> None:
    """The long ones were there first. One is longer than any may be, the other is not."""
    minutes = fault.size(full=25, short=3)
    fault.injected(f"a clip of 3 h, one of {minutes} min, then {SHORT_CLIPS} short ones in one statement")
    too_long, allowed = f"{RUNS[0]}/clips/hours.wav", f"{RUNS[0]}/clips/minutes.wav"
    _hours(scene.folder / "run" / "clips" / "hours.wav", 3)
    _minutes(scene.folder / "run" / "clips" / "minutes.wav", minutes)
    with psycopg.connect(scene.stack.db_url, autocommit=True) as db:
        db.execute("insert into runs (id, label) values (%s, 'long')", [RUNS[0]])
        long = {
            name: str(row[0])
            for name, seconds in ((too_long, 3 * 3600), (allowed, minutes * 60))
            for row in db.execute(
                "insert into clips (run_id, file_name, draft_transcription, duration_sec) "
                "values (%s, %s, 'stock draft', %s) returning id",
                [RUNS[0], name.partition("/")[2], seconds],
            )
        }
        scene.without_audio.update(long.values())
        scene.insert_at_once(SHORT_CLIPS)
        with nest.in_scene(scene, "daemon", drafting={**PROMPT, "batch_clips": 16}) as daemon:
            await scene.drafted(HEALED_S, name="the short ones within 60 s")
            scene.without_audio.discard(long[allowed])
            began = time.monotonic()
            await scene.drafted(150, name="the long one that is allowed")
            fault.observe(f"the {minutes} min were drafted {time.monotonic() - began:.1f} s after the short ones")
            query = "select reason from draft_state where clip_id = %s"
            reason = db.execute(query, [long[too_long]]).fetchone()
            fault.holds("3 h refused by rule", [] if reason == ("audio-too-long",) else [reason])
            scene.end(daemon)


def _hours(path: Path, hours: int) -> None:
    """Silence without a byte on the disk: 8 bits at 8 kHz, so that it is its length that is refused, not its size."""
    size = hours * 3600 * 8000
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8, b"data", size
    )
    path.write_bytes(header)
    os.truncate(path, len(header) + size)


def _minutes(path: Path, minutes: int) -> None:
    """Somebody who talks for minutes."""
    spoken = np.concatenate([each.audio for each in speak_corpus("A", 40, seed=507)])
    path.write_bytes(wav_bytes(np.resize(spoken, minutes * 60 * SAMPLE_RATE)))
