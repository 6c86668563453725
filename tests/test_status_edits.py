"""What people change in drafts, wherever it is told: `ambara status`, `ambara models list`, the page, `/metrics`.

All of it equals what SQL sums over the rows, and what was typed.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import seen
from daemon_process import ambara
from pages import Given
from scripted_editor import Editor
from supabase import AsyncClient
from witness import scalar

from daemon.asr.transcriber import Draft
from daemon.cli.status_edits import edits, told
from daemon.clips import ClipStore
from daemon.database import Database
from daemon.errors import ConfigurationError, TemporaryError
from daemon.learning.ledger import Ledger
from daemon.learning.registry import Registry
from daemon.ports import Drafted
from daemon.status.page import Page
from daemon.status.truth import Look, Questions
from handlers.policy import Policy

Sql = psycopg.Connection[Any]
SAID = "iray roa telo efatra"
CLIPS, RECORDINGS = 36, 6
SUMS = """
select count(*), sum(word_edits)::float / sum(words), sum(character_edits)::float / sum(characters),
  (count(*) filter (where word_edits = 0 and character_edits = 0))::float / count(*)
from draft_edits where version_id = %s
"""


@pytest.fixture
async def two(editor: Editor, supabase_client: AsyncClient) -> tuple[int, int]:
    """The version before and the live one. In every recording people left two thirds of the drafts of the first as they
    were, and a third of those of the second."""
    store, numbers = ClipStore(supabase_client, "daemon"), []
    for name, wrong in (("first", 1), ("second", 2)):
        version, _ = await store.register(name, f"{name:0<64}", {}, go_live=True)
        numbers.append(version)
        clips = [{"file_name": f"{name}-{n}.wav", "source_file": f"{name}-{n % RECORDINGS}"} for n in range(CLIPS)]
        run = await editor.sync_extraction(clips)
        claims = {claim.clip_id: claim for claim in await store.claim(version, 100, 60)}
        rows = await editor.clips(run)
        third = {row["id"]: int(row["file_name"].split("-")[1][:-4]) // RECORDINGS % 3 for row in rows}
        drafts = [
            Drafted(claims[clip], Draft("iray roa tsia efatra" if at < wrong else SAID, confidence=-0.2))
            for clip, at in third.items()
        ]
        await store.submit(version, drafts)
        for row in rows:
            await editor.save(row, SAID)
    assert await Ledger(Database(supabase_client), "daemon").edits.measure() == 2 * CLIPS
    return numbers[0], numbers[1]


def fact(db: Sql, version: int) -> dict[str, Any]:
    """As SQL sums it."""
    row: Any = db.execute(SUMS.encode(), [version]).fetchone()
    return {"version": version} | dict(zip(("clips", "words", "characters", "unchanged"), row, strict=True))


async def test_status_and_models_tell_what_sql_sums(
    two: tuple[int, int], db: Sql, clean_stack: Any, tmp_path: Path
) -> None:
    before, live = two
    told = json.loads(ambara(clean_stack, tmp_path, "status", "--json").stdout)["edits"]
    assert told["live"] == pytest.approx(fact(db, live))
    assert told["before"] == pytest.approx(fact(db, before))
    assert told["live"]["words"] == pytest.approx(2 / 3 / 4)
    assert told["before"]["unchanged"] == pytest.approx(2 / 3)
    assert told["verdict"] == "worse"
    shown = ambara(clean_stack, tmp_path, "status")
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = " ".join(shown.stdout.split())
    assert f"edits v{live}: 16.7% of words, " in lines
    assert "characters changed in 36 clips, 33.3% left as they were; worse beyond chance" in lines
    assert f"v{before}: 8.3% of words, " in lines
    assert "66.7% left as they were, before it" in lines
    listed = {
        each["number"]: each for each in json.loads(ambara(clean_stack, tmp_path, "models", "list", "--json").stdout)
    }
    for version in two:
        found = {"words": listed[version]["edit_rate"], "characters": listed[version]["edit_rate_characters"]}
        found |= {"version": version, "clips": listed[version]["corrected"], "unchanged": listed[version]["unchanged"]}
        assert found == pytest.approx(fact(db, version))


@asynccontextmanager
async def page(client: AsyncClient, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """What is shown of one read of the database."""
    database = Database(client)
    look = Look(await Questions(database, Ledger(database, "page"), str)(), 0.0, "")
    app = Page(Given(look), Registry(folder), seen.here, Policy, str).app("127.0.0.1")  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
        yield http


async def test_the_page_and_the_metrics_tell_what_sql_sums(
    two: tuple[int, int], db: Sql, supabase_client: AsyncClient, tmp_path: Path
) -> None:
    before, live = two
    async with page(supabase_client, tmp_path) as http:
        front = (await http.get("/")).text
        lines = [line.rpartition(" ") for line in (await http.get("/metrics")).text.splitlines() if line[0] != "#"]
    figures = {name: float(value) for name, _, value in lines}
    sums = fact(db, live)
    assert figures['ambara_live_edit_ratio{level="word"}'] == pytest.approx(sums["words"])
    assert figures['ambara_live_edit_ratio{level="character"}'] == pytest.approx(sums["characters"])
    assert figures["ambara_live_unchanged_ratio"] == pytest.approx(sums["unchanged"])
    assert figures["ambara_live_edits_worse"] == 1
    assert "no: they grow" in front
    card = f"version {live}: 16.7 % of words changed in 36 clips of 6 recordings; of version {before} before it: 8.3 %"
    assert card in front
    monday = scalar(db, "select date_trunc('week', now() at time zone 'UTC')::date::text")
    for share in (sums["words"], sums["characters"], sums["unchanged"]):
        assert f'<th scope="row">v{live}</th><td>{monday}</td><td>36</td><td>{share * 100:.1f} %</td>' in front


async def test_a_verdict_names_no_recording_on_the_page(
    two: tuple[int, int], db: Sql, supabase_client: AsyncClient, tmp_path: Path
) -> None:
    """The guard against the worst recording does, in the evidence and in the reason."""
    _, live = two
    named = "word error rate of the worst recording (2024 secret (1).mp3)"
    compared = seen.comparison(1, 0.3, 0.2)
    compared["guards"] = [{"name": named, "live": 0.1, "candidate": 0.9, "tolerance": 0.05}]
    db.execute(
        "update model_versions set detail = %s, reason = %s where id = %s",
        [
            json.dumps({"comparison": compared}),
            f"worse: {named} 10.0 % -> 90.0 %, and at most 15.0 % is let pass",
            live,
        ],
    )
    async with page(supabase_client, tmp_path) as http:
        for place in ("/", f"/versions/{live}", "/metrics"):
            text = (await http.get(place)).text
            assert "secret" not in text
            assert place == "/metrics" or "of the worst recording 10.0 % -&gt; 90.0 %" in text


async def test_a_version_that_nobody_corrected_and_one_alone(
    editor: Editor, supabase_client: AsyncClient, clean_stack: Any, tmp_path: Path
) -> None:
    def status(*arguments: str) -> str:
        done = ambara(clean_stack, tmp_path, "status", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert json.loads(status("--json"))["edits"] is None
    assert "edits" not in status()
    version, _ = await ClipStore(supabase_client, "daemon").register("only", "f" * 64, {}, go_live=True)
    alone = {"version": version, "clips": 0, "words": None, "characters": None, "unchanged": None}
    assert json.loads(status("--json"))["edits"] == {"live": alone, "before": None, "verdict": None}
    assert f"v{version}: nobody has corrected a draft" in status()


@pytest.mark.parametrize("error", [ConfigurationError("It does not know that."), TemporaryError("It is too busy.")])
def test_a_database_that_does_not_tell_of_corrections(error: Exception) -> None:
    def ask(_: str) -> Any:
        raise error

    assert edits({"live": {"id": 3}}, ask) is None
    assert told({"live": {"version": 3, "words": None}, "before": None, "verdict": None}) == [
        "v3: nobody has corrected a draft"
    ]
