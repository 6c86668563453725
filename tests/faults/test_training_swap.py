"""The live version changes back and forth while clips come in: each draft is of the version that its log names."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import soundfile
from daemon_process import daemon_process
from fault_record import Fault
from training_storm_models import candidate, shaken
from witness import insert_clips, scalar, until, waiting, write_run

from daemon.asr import families
from daemon.asr.metrics import character_error_rate
from daemon.learning.registry import Registry
from daemon.local.speech import speak_corpus

Db = psycopg.Connection[Any]
RUN = str(UUID(int=0x5A4B))
SPOKEN, PER_SWAP = 10, 4
WAITING = 60
"""Clips that are there from the start: drafting them anew takes until the next change."""
DRAFTING = {"sweep_seconds": 1, "batch_clips": 2, "batches_per_turn": 16, "claim_clips": 32}


@pytest.mark.fault("F24", "swap-under-inserts")
async def test_no_draft_is_lost_or_of_another_version(clean_stack: Any, db: Db, fault: Fault, tmp_path: Path) -> None:
    swaps = fault.size(full=20, short=3)
    fault.injected(f"{swaps} changes of the live version, by hand, over {WAITING} clips and {PER_SWAP} more for each")
    spoken = speak_corpus("A", SPOKEN, seed=91)
    names = list(write_run(tmp_path / "run", spoken, WAITING + PER_SWAP * swaps))
    with daemon_process(
        clean_stack, tmp_path, drafting=DRAFTING, audio={"run_dirs": {RUN: tmp_path / "run"}}
    ) as daemon:
        registry = Registry(tmp_path / "state" / "models")
        versions = [candidate(db, registry, shaken(0.05, seed)) for seed in (1, 2)]
        said = _heard(registry, versions, [tmp_path / "run" / name for name in names[:SPOKEN]])
        differ = sum(one != other for one, other in zip(*said.values(), strict=True))
        assert differ >= SPOKEN // 2, "two versions that say the same show nothing"
        insert_clips(db, RUN, names[:WAITING])
        left = iter(names[WAITING:])
        async with asyncio.TaskGroup() as tasks:
            done = asyncio.Event()
            tasks.create_task(_insert(db, left, fault, done))
            for number in range(swaps):
                version = versions[number % 2]
                await asyncio.sleep(fault.random.uniform(0, 0.7))
                db.execute("select ambara_promote(%s, null, 'by hand')", [version])
                with fault.healing():
                    await until(lambda n=number: len(daemon.said("model swapped")) > n, "it is in memory")
                    await until(lambda v=version: _drafts(db, v) > 0, "and drafts")
            done.set()
        await until(lambda: waiting(db) == 0, "everything is drafted")
        live = versions[(swaps - 1) % 2]
        rows = db.execute(
            "select d.version_id, c.file_name, d.text from drafts d join clips c on c.id = d.clip_id "
            "where d.version_id = any (%s)",
            [versions],
        ).fetchall()
        fault.observe(f"{len(rows)} drafts; the versions differ in {differ} of {SPOKEN} sentences")
        fault.holds("every draft of the version in its log", _foreign(rows, said, names))
        failed = [line for line in daemon.said("drafted") if line["failed"]] + daemon.said("interrupted")
        fault.holds(
            "0 failed drafts", failed + db.execute("select 1 from draft_state where reason is not null").fetchall()
        )
        fault.holds("I1 every clip drafted", _not_of(db, live))
        fault.holds("I8 never ended", [] if daemon.running else [daemon.output[-2000:]])


async def _insert(db: Db, left: Any, fault: Fault, done: asyncio.Event) -> None:
    """Clips, one at a time, until they are all there or nobody wants any more."""
    for name in left:
        if done.is_set():
            return
        insert_clips(db, RUN, [name])
        await asyncio.sleep(fault.random.uniform(0, 0.3))


def _heard(registry: Registry, versions: list[int], files: Sequence[Path]) -> dict[int, list[str]]:
    """What each version says to each sentence, one at a time and with no daemon around.

    Of the files: with shaken weights, the rounding to 16 bits alone decides between one text and another.
    """
    waves = [soundfile.read(each, dtype="float32")[0] for each in files]
    said = {}
    for version in versions:
        model = families.load("whisper", {"model": str(registry.folder(version) / "model"), "device": "cpu"})
        said[version] = [model.transcribe([wave])[0].text for wave in waves]
    return said


def _foreign(rows: Any, said: dict[int, list[str]], names: list[str]) -> list[object]:
    """Drafts that are nearer to what the other version says: sums of a batch may come out a letter apart."""
    found: list[object] = []
    for version, name, text in rows:
        sentence = names.index(name) % SPOKEN
        own = said[version][sentence]
        (other,) = (texts[sentence] for each, texts in said.items() if each != version)
        if text != own and character_error_rate([own], [text]) >= character_error_rate([other], [text]):
            found.append((version, name, text, own, other))
    return found


def _drafts(db: Db, version: int) -> int:
    query = "select count(*) from drafts d join model_versions v on v.id = d.version_id and d.created_at > v.live_at"
    return int(scalar(db, f"{query} where v.id = %s", version))


def _not_of(db: Db, live: int) -> list[object]:
    """Clips whose last draft is not the live version's, or not the one that they show."""
    rows = db.execute(
        "select c.file_name, c.draft_transcription, d.text, d.version_id from clips c left join lateral ("
        "  select * from drafts d where d.clip_id = c.id order by d.id desc limit 1) d on true"
    ).fetchall()
    return [row for row in rows if row[3] != live or row[1] != row[2]]
