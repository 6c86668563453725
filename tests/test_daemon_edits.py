"""A daemon whose promoted model drafts worse than the one before: people's corrections tell, and it goes back."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest
import torch
from daemon_process import daemon_process
from safetensors.torch import load_file, save_file
from scripted_editor import Editor
from supabase import AsyncClient, acreate_client
from witness import Database, scalar, until

from daemon.asr import families
from daemon.learning.registry import Registry
from daemon.learning.sources import Sources
from daemon.local.speech import speak_corpus, wav_bytes
from daemon.local.tiny import BASE
from daemon.sections import ModelSettings

CLIPS, RECORDINGS = 36, 6
SETTINGS: dict[str, Any] = {"drafting": {"sweep_seconds": 1}, "promotion": {"rollback": "auto"}}


def crippled(registry: Registry, number: int) -> str:
    """Publish the carried model with a noisy decoder as a version. Returns its fingerprint."""
    model = registry.folder(number) / "model"
    shutil.copytree(BASE, model)
    weights = load_file(model / "model.safetensors")
    dice = torch.Generator().manual_seed(0)
    for name in [name for name in weights if "decoder" in name]:
        weights[name] = weights[name] + 0.05 * torch.randn(weights[name].shape, generator=dice)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    registry.publish(number, {})
    opened = Sources(registry, ModelSettings(base=str(BASE), device="cpu")).opened(str(model), None)
    return families.fingerprint("whisper", opened)


@pytest.mark.usefixtures("clean_stack")
async def test_it_goes_back_by_itself_once(
    clean_stack: Any, supabase_client: AsyncClient, db: Database, tmp_path: Path
) -> None:
    person = await acreate_client(clean_stack.url, clean_stack.anon_key)
    person.postgrest.auth(clean_stack.mint("authenticated", sub=str(uuid.uuid4())))
    editor = Editor(person, supabase_client)
    spoken = list({each.text: each for each in speak_corpus("A", 3 * CLIPS, seed=5)}.values())[: 2 * CLIPS]
    assert len(spoken) == 2 * CLIPS
    texts: dict[str, str] = {}

    async def brings(part: int) -> None:
        """The extraction brings clips of six recordings."""
        mine = {f"{part}-{at}.wav": each for at, each in enumerate(spoken[part * CLIPS : (part + 1) * CLIPS])}
        rows = [
            {"file_name": name, "source_file": f"tape {part}-{at % RECORDINGS}", "duration_sec": each.seconds}
            for at, (name, each) in enumerate(mine.items())
        ]
        texts.update({name: each.text for name, each in mine.items()})
        await editor.sync_extraction(rows, audio={name: wav_bytes(each.audio) for name, each in mine.items()})

    async def correct() -> None:
        """People save what was said."""
        for clip in await editor.clips():
            if clip["status"] == "pending":
                await editor.save(clip, texts[clip["file_name"]])

    def drafted(version: int) -> int:
        return int(scalar(db, "select count(*) from drafts where version_id = %s", version))

    with daemon_process(clean_stack, tmp_path, **SETTINGS) as daemon:
        base = int(daemon.wait_for("model ready")["version"])
        await brings(0)
        await until(lambda: drafted(base) == CLIPS, "drafted by the base")
        await correct()

        known = "insert into model_versions (name, fingerprint, kind) values ('bad', 'f', 'trained') returning id"
        bad = int(scalar(db, known))
        mark = crippled(Registry(tmp_path / "state" / "models"), bad)
        db.execute("update model_versions set fingerprint = %s where id = %s", [mark, bad])
        assert scalar(db, "select ambara_promote(%s, %s, 'as a judge might err') ->> 'live'", bad, base) == str(bad)
        daemon.wait_for("model swapped", version=bad)
        await brings(1)
        await until(lambda: drafted(bad) == CLIPS, "drafted by the crippled one")
        await correct()
        people = db.execute("select id, corrected_transcription, status from clips order by id").fetchall()

        gone = daemon.wait_for("rolled back", version=bad)
        assert gone["to"] == base
        assert f"drafts of version {bad}" in gone["why"]
        assert scalar(db, "select reason from model_versions where id = %s", bad) == gone["why"]
        daemon.wait_for("model swapped", version=base)
        assert scalar(db, "select count(*) from draft_edits") == 2 * CLIPS
        assert db.execute("select id, corrected_transcription, status from clips order by id").fetchall() == people
        assert daemon.stop() == 0
        assert len(daemon.said("rolled back")) == 1
    await person.realtime.close()
