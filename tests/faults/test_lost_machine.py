"""The machine that trained is gone, and the versions in its state directory with it."""

from __future__ import annotations

import shutil

import psycopg
import pytest
from daemon_process import ambara
from fault_record import Fault
from scene import Scene
from versions import publish_trained


@pytest.mark.fault("F37", "lost-machine")
async def test_the_machine_with_the_live_version_is_lost(fault: Fault, scene: Scene) -> None:
    """Another one says what it lacks and drafts nothing by a lesser model until a person has chosen."""
    clips = fault.size(full=100, short=10)
    fault.injected(f"the state directory of a live trained version is deleted; {clips} inserts")
    with psycopg.connect(scene.stack.db_url, autocommit=True) as db:
        with scene.daemon("first") as first:
            version = publish_trained(db, scene.folder / "first" / "state")
            chosen = ambara(scene, scene.folder / "first", "models", "promote", str(version))
            assert chosen.returncode == 0, chosen.stderr
            scene.insert(clips)
            await scene.drafted()
            first.kill()
        shutil.rmtree(scene.folder / "first" / "state")
        with scene.daemon("second") as second:
            second.wait_for("the live version cannot be served here", version=version)
            scene.insert(clips)
            why = second.wait_for("not drafting")["why"]
            fault.holds("says what it lacks", [] if f"version {version} is live" in why else [why])
            by_another = db.execute("select clip_id::text from drafts where version_id <> %s", [version]).fetchall()
            fault.holds("no draft by a lesser model", by_another)
            back = ambara(scene, scene.folder / "second", "models", "rollback")
            assert back.returncode == 0, back.stderr
            await scene.drafted()
            scene.kept()
            scene.silent(first, second)
            scene.same(second)
