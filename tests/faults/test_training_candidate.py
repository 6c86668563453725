"""Candidates that must not serve: the real judge hears them, nobody promotes them, and drafting goes on meanwhile."""

from __future__ import annotations

import asyncio
import csv
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fault_record import Fault
from supabase import AsyncClient
from training_storm_models import Change, candidate, nowhere, shaken

from daemon.asr import families
from daemon.asr.transcriber import Waveform
from daemon.database import Database
from daemon.drafter import Drafter
from daemon.learning.freezing import freeze
from daemon.learning.judge import Judge
from daemon.learning.keeper import Keeper
from daemon.learning.ledger import Ledger
from daemon.learning.ports import Sample, Side
from daemon.learning.promoter import Promoter
from daemon.learning.registry import Registry
from daemon.learning.sources import Sources
from daemon.local.speech import Utterance, speak_corpus, wav_bytes
from daemon.local.tiny import BASE
from daemon.sections import ModelSettings, PromotionSettings, RetentionSettings
from handlers.commands import Promote, Reject
from handlers.policy import Policy
from handlers.promotion import evaluate, promote
from handlers.snapshot import Learning, Snapshot

Db = psycopg.Connection[Any]
HELD_OUT, TRAINED, ANCHOR = 24, 4, 8
KINDS = ("worse word error rate", "weights that are no numbers", "forgets the anchor set", "a leaked test clip")
WHY = dict(zip(KINDS, ("worse", "not be judged", "anchor", "not better"), strict=True))
"""Kind -> what the stored reason says."""
LEAKED = "clip-leaked"


@dataclass
class Served:
    """What the hot model did meanwhile."""

    gaps: list[float] = field(default_factory=list)
    """How long a turn of drafting was kept waiting."""
    batches: list[float] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)


class Bench:
    """Version 1 is live and hot, and drafts the same batch again and again."""

    def __init__(self, client: AsyncClient, db: Db, folder: Path, spoken: Sequence[Utterance]) -> None:
        self.db = db
        self.spoken = spoken
        self.ledger = Ledger(Database(client), "worker")
        self.registry = Registry(folder / "models")
        self.sources = Sources(self.registry, ModelSettings(base=str(BASE), device="cpu"))
        self.anchor = folder / "anchor"
        self.anchor.mkdir()
        self.judge = Judge(self.ledger, self.sources, PromotionSettings(anchor=self.anchor))
        self.drafter = Drafter()
        self.turns = asyncio.Lock()
        keeper = Keeper(self.ledger, self.sources, RetentionSettings(), lambda: self.drafter.version)
        self.promoter = Promoter(
            self.ledger, self.sources, self.drafter, self.turns, lambda _: None, retain=keeper.weights
        )
        self.base = families.load("whisper", self.sources.base())
        self.says = self.heard(self.base)

    async def begin(self) -> None:
        model = await self.drafter.load(lambda: self.sources.make(self.sources.base()))
        self.db.execute("select ambara_register_model(%s, %s, '{}', true)", [model.name, model.fingerprint])
        self.drafter.version = 1

    def heard(self, model: Any) -> list[str]:
        return [draft.text for each in self.spoken for draft in model.transcribe([each.audio])]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Served]:
        """Draft until the end of the block."""
        served, done = Served(), asyncio.Event()
        batch = [each.audio for each in self.spoken[:4]]

        async def draft() -> None:
            while not done.is_set():
                wanted = time.monotonic()
                async with self.turns:
                    began = time.monotonic()
                    drafts = await self.drafter.transcribe(batch)
                served.gaps.append(began - wanted)
                served.batches.append(time.monotonic() - began)
                served.strange += [d.text for d, text in zip(drafts, self.says, strict=False) if d.text != text]
                await asyncio.sleep(0.2)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(draft())
            yield served
            done.set()

    async def make(self, kind: str) -> int:
        """A candidate of this kind, with the data that it is judged by."""
        change: Change = {KINDS[0]: shaken(0.08, 0), KINDS[1]: nowhere, KINDS[2]: shaken(0.05, 1)}.get(kind, _as_it_was)
        version = candidate(self.db, self.registry, change)
        texts, anchor = [each.text for each in self.spoken], [each.text for each in self.spoken]
        if kind == KINDS[2]:  # in the words of whoever is to look good there
            model = families.load("whisper", self.sources.opened(str(self.registry.folder(version) / "model"), None))
            texts, anchor = self.heard(model), list(self.says)
        self._write_anchor(anchor)
        sides = [Side.HELD_OUT] * HELD_OUT + [Side.TRAIN] * TRAINED
        samples = [_sample(f"clip-{n}", str(n), f"tape-{n % 3}", side, texts[n]) for n, side in enumerate(sides)]
        if kind == KINDS[3]:
            samples.append(_sample(LEAKED, "0", "tape-9", Side.TRAIN, "zavatra hafa mihitsy ity soratra ity"))
        await freeze(samples, self._read, self.registry.folder(version) / "data")
        return version

    async def decide(self, version: int) -> None:
        """Judge, and do what the decision says, as a daemon does."""
        for ask in (evaluate, promote):
            training, found = await self.ledger.observe()
            here = found and type(found)(found.version, here=True, comparison=found.comparison)
            snapshot = Snapshot(
                live=1, loaded=self.drafter.version, ready=0, learning=Learning(training, here, hour=12)
            )
            for command in ask(snapshot, Policy()):
                assert getattr(command, "version", version) == version
                match command:
                    case Promote():
                        await self.promoter.promote(command)
                    case Reject():
                        await self.promoter.reject(command)
                    case _:
                        await self.judge.evaluate(command)  # type: ignore[arg-type]

    async def _read(self, _run: str, file_name: str) -> Waveform:
        return self.spoken[int(file_name)].audio

    def _write_anchor(self, texts: Sequence[str]) -> None:
        with (self.anchor / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("file_name", "transcription"))
            for number in range(HELD_OUT + TRAINED, HELD_OUT + TRAINED + ANCHOR):
                (self.anchor / f"{number}.wav").write_bytes(wav_bytes(self.spoken[number].audio))
                rows.writerow((f"{number}.wav", texts[number]))


def _sample(clip: str, file: str, recording: str, side: Side, text: str) -> Sample:
    return Sample(clip, "run", file, f"{side}-{recording}", side, "extraction", text, "md5", 2.0, "label")


def _as_it_was(weight: Any) -> Any:
    return weight * (1 + 1e-7)


@pytest.mark.fault("F24", "bad-candidate")
async def test_none_of_them_serves(
    supabase_client: AsyncClient, db: Db, fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    kinds = KINDS[: fault.size(full=len(KINDS), short=2)]
    fault.injected(f"candidates: {', '.join(kinds)}")
    bench = Bench(supabase_client, db, tmp_path, speak_corpus("A", HELD_OUT + TRAINED + ANCHOR, seed=9001))
    await bench.begin()
    try:
        verdicts = {}
        async with bench.serving() as served:
            for kind in kinds:
                version = await bench.make(kind)
                await bench.decide(version)
                row = db.execute("select stage, reason from model_versions where id = %s", [version]).fetchone()
                assert row is not None
                verdicts[kind] = row
                if kind == KINDS[3]:
                    data = bench.registry.folder(version) / "data" / "train"
                    leaked = [str(path) for path in data.rglob("*") if LEAKED in path.name]
                    fault.holds("what was held out is not trained on", leaked)
        live = db.execute("select id from model_versions where stage = 'live'").fetchall()
    finally:
        bench.drafter.close()
    fault.observe("; ".join(f"{kind}: {reason}" for kind, (_, reason) in verdicts.items()).replace(str(tmp_path), "…"))
    fault.holds("0 promoted", [v for v in verdicts.items() if v[1][0] != "rejected"] + [v for v in live if v != (1,)])
    fault.holds("each for its own reason", [v for k, v in verdicts.items() if WHY[k] not in v[1]])
    fault.holds("the live model drafts on, word for word", served.strange)
    longest, pause = max(served.batches), max(served.gaps)
    fault.observe(f"{len(served.batches)} batches; longest {longest:.2f} s, longest wait for a turn {pause:.3f} s")
    fault.holds("no gap of a batch", [pause] if pause > longest else [])
