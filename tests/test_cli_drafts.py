"""`ambara drafts` as a process of its own: the log of a clip, and a way back that never touches a person's words."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from daemon_process import ambara
from scripted_editor import Editor, Row
from witness import clip_rows, scalar, team

Db = psycopg.Connection[tuple[Any, ...]]

GOOD, WORSE = "manao [bold]ahoana[/bold]\x1b[2J", "manahoana"


async def drafted(db: Db, editor: Editor) -> Row:
    """A clip that version 1 drafted well, and version 2, which is live, less well."""
    run = await editor.sync_extraction([{"file_name": "clips/0.wav", "draft_transcription": WORSE}])
    (clip,) = await editor.clips(run)
    for name in ("one", "two"):
        db.execute("select ambara_register_model(%s, %s, '{}', true)", [name, name])
    for version, text, flags in ((1, GOOD, ["chunked"]), (2, WORSE, [])):
        db.execute(
            "insert into drafts (clip_id, version_id, text, confidence, flags, worker) "
            "values (%s, %s, %s, -0.25, %s, 'w')",
            [clip["id"], version, text, flags],
        )
    db.execute(
        """insert into draft_state (clip_id, version_id, settled_seq, drafted_at, text_md5)
        select id, 2, (select live_seq from model_versions where stage = 'live'), updated_at, md5(draft_transcription)
        from clips"""
    )
    assert scalar(db, "select ambara_snapshot() -> 'ready'") == 0
    return clip


def first_draft(db: Db) -> str:
    return str(scalar(db, "select min(id) from drafts"))


async def test_the_log_is_shown_newest_first_and_as_text(db: Db, clean_stack: Any, tmp_path: Path) -> None:
    async with team(clean_stack) as editor:
        clip = await drafted(db, editor)
    shown = ambara(clean_stack, tmp_path, "drafts", clip["id"])
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.index(WORSE) < shown.stdout.index("manao [bold]ahoana[/bold]�[2J")
    assert "\x1b" not in shown.stdout
    told = json.loads(ambara(clean_stack, tmp_path, "drafts", clip["id"], "--json").stdout)
    assert [(each["version"], each["text"], each["flags"]) for each in told] == [(2, WORSE, []), (1, GOOD, ["chunked"])]
    nothing = ambara(clean_stack, tmp_path, "drafts", str(uuid.uuid4()))
    assert (nothing.returncode, "no draft of clip" in nothing.stdout) == (0, True)
    assert ambara(clean_stack, tmp_path, "drafts", "not-an-id").returncode == 2


async def test_a_draft_comes_back_and_stays_until_another_version_is_live(
    db: Db, clean_stack: Any, tmp_path: Path
) -> None:
    async with team(clean_stack) as editor:
        clip = await drafted(db, editor)
    before = clip_rows(db)[clip["id"]]
    done = ambara(clean_stack, tmp_path, "drafts", clip["id"], "--restore", first_draft(db))
    assert done.returncode == 0, done.stderr
    assert "is clip" in done.stdout
    after = clip_rows(db)[clip["id"]]
    assert after | {"updated_at": None} == before | {"updated_at": None, "draft_transcription": GOOD}
    assert db.execute("select text from drafts order by id desc").fetchone() == (GOOD,)
    assert scalar(db, "select ambara_snapshot() -> 'ready'") == 0
    db.execute("select ambara_register_model('three', 'three', '{}', true)")
    assert scalar(db, "select ambara_snapshot() -> 'ready'") == 1


Act = Callable[[Editor, Row], Awaitable[Any]]


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda editor, clip: editor.save(clip, "manao ahoana"), "their words stay"),
        (lambda editor, clip: editor.autosave(clip, "manao"), "a person is at work"),
        (lambda editor, clip: editor.autosave(clip, ""), "a person is at work"),
        (lambda editor, clip: editor.discard(clip), "discarded"),
    ],
    ids=["saved", "typing", "emptied", "discarded"],
)
async def test_never_over_a_person(db: Db, clean_stack: Any, tmp_path: Path, act: Act, said: str) -> None:
    async with team(clean_stack) as editor:
        clip = await drafted(db, editor)
        await act(editor, clip)
    before = (clip_rows(db), scalar(db, "select count(*) from drafts"))
    refused = ambara(clean_stack, tmp_path, "drafts", clip["id"], "--restore", first_draft(db))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert said in refused.stderr
    assert "Nothing was changed" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert (clip_rows(db), scalar(db, "select count(*) from drafts")) == before


async def test_a_draft_of_another_clip_is_refused(db: Db, clean_stack: Any, tmp_path: Path) -> None:
    async with team(clean_stack) as editor:
        clip = await drafted(db, editor)
        await editor.sync_extraction([{"file_name": "clips/1.wav"}])
    other = scalar(db, "select id::text from clips where file_name = 'clips/1.wav'")
    before = clip_rows(db)
    for chosen, number in ((other, first_draft(db)), (clip["id"], "999999")):
        refused = ambara(clean_stack, tmp_path, "drafts", chosen, "--restore", number)
        assert (refused.returncode, f"no draft {number}" in refused.stderr) == (1, True)
    assert clip_rows(db) == before
