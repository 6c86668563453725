"""What becomes of a candidate that could not be compared."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from supabase import AsyncClient
from witness import Database, scalar

from daemon.asr.judging import ClipError, HeldOut
from daemon.database import Database as Functions
from daemon.errors import TemporaryError
from daemon.learning import judge
from daemon.learning.judge import NOT_ITS_FAULT, TRIES, Judge
from daemon.learning.ledger import Ledger
from daemon.learning.ports import ChildFailed
from daemon.learning.registry import Registry
from daemon.learning.sources import Sources
from daemon.local.tiny import BASE
from daemon.sections import ModelSettings, PromotionSettings
from handlers.commands import Evaluate
from handlers.events import Event, ModelRejected


class Bench:
    """The carried base is live, and a copy of it is the candidate; every comparison fails as the test says."""

    def __init__(self, client: AsyncClient, db: Database, folder: Path) -> None:
        self.db = db
        registry = Registry(folder / "models")
        sources = Sources(registry, ModelSettings(base=str(BASE), device="cpu"))
        self.judge = Judge(Ledger(Functions(client), "worker-1"), sources, PromotionSettings())
        register = "select (ambara_register_model(%s, 'f', '{}', true) ->> 'version')::int"
        live = scalar(db, register, str(BASE))
        candidate = scalar(
            db,
            "insert into model_versions (name, fingerprint, kind, stage) "
            "values ('trained', 'c', 'trained', 'candidate') returning id",
        )
        shutil.copytree(BASE, registry.folder(candidate) / "model")
        registry.publish(candidate, {})
        self.command = Evaluate(candidate, against=live)

    async def evaluate(self) -> Event | None:
        return await self.judge.evaluate(self.command)

    def stage(self) -> str:
        return str(scalar(self.db, "select stage from model_versions where id = %s", self.command.version))


@pytest.fixture
def bench(supabase_client: AsyncClient, db: Database, tmp_path: Path) -> Bench:
    return Bench(supabase_client, db, tmp_path)


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Its one entry is why."""
    why = [""]

    async def run_child(_job: Path, _log: Path, _heard: Any) -> ChildFailed:
        return ChildFailed(why[0], "A sentence.")

    monkeypatch.setattr(judge, "run_child", run_child)
    monkeypatch.setattr(judge, "PAUSE_S", 0)
    return why


@pytest.mark.parametrize("reason", sorted(NOT_ITS_FAULT))
async def test_nobody_is_turned_down_for_what_the_machine_lacks(bench: Bench, fails: list[str], reason: str) -> None:
    fails[0] = reason
    for _ in range(2 * TRIES):
        with pytest.raises(TemporaryError) as caught:
            await bench.evaluate()
        assert (caught.value.reason, bench.stage()) == (reason, "candidate")


@pytest.mark.parametrize("reason", ["crashed", "hung", "data"])
async def test_what_may_be_its_fault_is_tried_again_and_then_is(bench: Bench, fails: list[str], reason: str) -> None:
    fails[0] = reason
    for _ in range(TRIES - 1):
        assert await bench.evaluate() is None
        assert bench.stage() == "candidate"
    assert await bench.evaluate() == ModelRejected()
    assert bench.stage() == "rejected"


async def test_one_that_fails_itself_is_turned_down_at_once(bench: Bench, fails: list[str]) -> None:
    fails[0] = "candidate"
    assert await bench.evaluate() == ModelRejected()
    assert bench.stage() == "rejected"


@pytest.mark.parametrize(("kind", "whose"), [("extraction", "data"), ("reading", "data"), ("anchor", "anchor")])
def test_whose_clip_it_is_that_cannot_be_read(kind: str, whose: str, tmp_path: Path) -> None:
    with pytest.raises(ClipError) as caught:
        HeldOut("clip-1", "tape", kind, "teny", tmp_path / "gone.wav").load()
    assert caught.value.kind == whose
