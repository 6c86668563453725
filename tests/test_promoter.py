"""A version in the place of another: real models, the real database, and everything that can go wrong between them."""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from corrections import Database
from structlog.testing import capture_logs
from supabase import AsyncClient

from daemon.asr import families
from daemon.asr.transcriber import Transcriber
from daemon.database import Database as Functions
from daemon.drafter import Drafter
from daemon.errors import TemporaryError
from daemon.learning.freezing import freeze
from daemon.learning.keeper import Keeper
from daemon.learning.ledger import Ledger
from daemon.learning.ports import Sample, Side
from daemon.learning.promoter import Promoter
from daemon.learning.registry import Registry
from daemon.learning.sources import Sources
from daemon.local.speech import Utterance, speak_corpus
from daemon.local.tiny import BASE
from daemon.sections import ModelSettings, RetentionSettings
from handlers.commands import Promote, Reject, RollBack, Swap
from handlers.events import ModelPromoted, ModelRejected, ModelSwapped, SweepDue


class Bench:
    """Version 1 is the carried base, live and hot; others are copies of it that pass for trained ones."""

    def __init__(self, client: AsyncClient, db: Database, folder: Path) -> None:
        self.db = db
        self.ledger = Ledger(Functions(client), "worker-1")
        self.registry = Registry(folder / "models")
        self.sources = Sources(self.registry, ModelSettings(base=str(BASE), device="cpu"))
        self.drafter = Drafter()
        self.turns = asyncio.Lock()
        self.promoted: list[int] = []
        keeper = Keeper(self.ledger, self.sources, RetentionSettings(versions=0), lambda: self.drafter.version)
        self.promoter = Promoter(
            self.ledger,
            self.sources,
            self.drafter,
            self.turns,
            lambda version: self.promoted.append(version.id),
            retain=keeper.weights,
        )

    async def begin(self) -> None:
        model = await self.drafter.load(lambda: self.sources.make(self.sources.base()))
        self.drafter.version, _ = await self.ledger_register(model)
        self.engine = model.describe()["engine"]

    async def ledger_register(self, model: Transcriber) -> tuple[int, Any]:
        row = self.db.execute(
            "select ambara_register_model(%s, %s, '{}', true)", [model.name, model.fingerprint]
        ).fetchone()
        assert row is not None
        return int(row[0]["version"]), row[0]["live"]

    def trained(self, *, published: bool = True) -> int:
        """A candidate, with its folder here."""
        row = self.db.execute(
            "insert into model_versions (name, fingerprint, kind, stage) "
            "values ('trained', gen_random_uuid()::text, 'trained', 'candidate') returning id"
        ).fetchone()
        assert row is not None
        version = int(row[0])
        if published:
            self.publish(version)
        return version

    def publish(self, version: int) -> None:
        """A copy of the base that is another model to everybody: a line more in a file that shapes its drafts."""
        model = self.registry.folder(version) / "model"
        shutil.copytree(BASE, model)
        with (model / "config.json").open("a", encoding="utf-8") as file:
            file.write("\n" * version)
        self.registry.publish(version, {})
        mark = families.fingerprint("whisper", self.sources.opened(str(model), None))
        self.db.execute("update model_versions set fingerprint = %s where id = %s", [mark, version])

    async def promote(self, version: int, against: int = 1) -> Any:
        return await self.promoter.promote(Promote(version, against=against, reason="better: said the judge"))

    def stage(self, version: int) -> tuple[str, str | None]:
        row = self.db.execute("select stage, reason from model_versions where id = %s", [version]).fetchone()
        assert row is not None
        return str(row[0]), row[1]


@pytest.fixture
async def bench(supabase_client: AsyncClient, db: Database, tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(supabase_client, db, tmp_path)
    await made.begin()
    assert made.drafter.version == 1
    yield made
    made.drafter.close()


@pytest.fixture(scope="module")
def spoken() -> list[Utterance]:
    return speak_corpus("A", 2, seed=9)


async def test_a_candidate_goes_live_between_two_turns(bench: Bench) -> None:
    """Not before the turn that is under way has ended; the database hears of it first, and the old model is let go."""
    version = bench.trained()
    await bench.turns.acquire()
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        promoting = tasks.create_task(bench.promote(version))
        while bench.stage(version)[0] != "live":  # noqa: ASYNC110 - the database does not ring
            await asyncio.sleep(0.02)
        assert bench.drafter.version == 1
        bench.turns.release()
    assert promoting.result() == ModelPromoted()
    assert bench.drafter.version == version
    assert bench.drafter.model.name.endswith(f"{version:04}/model")
    assert bench.stage(version) == ("live", "better: said the judge")
    assert bench.stage(1)[0] == "retired"
    assert bench.promoted == [version]


async def test_a_version_is_served_with_the_engine_that_it_was_judged_with(bench: Bench) -> None:
    """What is faster says other words, if few: a verdict on transformers says nothing of them."""
    for judged_with, served_with in (("transformers", "transformers"), ("ctranslate2", "auto")):
        version = bench.trained()
        models = {"candidate": {"engine": judged_with}}
        (bench.registry.folder(version) / "evidence.json").write_text(json.dumps({"models": models, "clips": []}))
        assert await bench.promote(version, int(bench.drafter.version or 0)) == ModelPromoted()
        known = await bench.ledger.version(version)
        assert known
        assert bench.sources.options(known)["engine"] == served_with
        wanted = "transformers" if judged_with == "transformers" else bench.engine
        assert bench.drafter.describe()["engine"] == wanted


async def test_an_engine_that_nobody_judged_is_told(bench: Bench) -> None:
    """The one of the verdict is not installed here, or a person has chosen another."""
    version = bench.trained()
    models = {"candidate": {"engine": "ctranslate2"}}
    (bench.registry.folder(version) / "evidence.json").write_text(json.dumps({"models": models, "clips": []}))
    bench.sources = Sources(bench.registry, ModelSettings(base=str(BASE), device="cpu", engine="transformers"))
    known = await bench.ledger.version(version)
    assert known
    with capture_logs() as lines:
        (await bench.sources.maker(known))()
    (line,) = (line for line in lines if line["event"] == "not the engine that it was judged with")
    assert (line["version"], line["judged"], line["serves"]) == (version, "ctranslate2", "transformers")


async def test_weights_that_are_not_what_they_were_are_turned_down(bench: Bench) -> None:
    version = bench.trained()
    weights = bench.registry.folder(version) / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    assert await bench.promote(version) == ModelRejected()
    stage, reason = bench.stage(version)
    assert stage == "rejected"
    assert "not as it was published" in str(reason)
    assert (bench.drafter.version, bench.stage(1)[0]) == (1, "live")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EMFILE])
async def test_no_candidate_is_turned_down_for_what_the_machine_lacks(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A training of hours is not thrown away because a disk was full for a minute."""
    version = bench.trained()
    real = families.load

    def load(*_: Any) -> Transcriber:
        raise OSError(number, "the system's word")

    monkeypatch.setattr(families, "load", load)
    with pytest.raises(TemporaryError, match=r"cannot open the model now .the system's word"):
        await bench.promote(version)
    assert bench.stage(version)[0] == "candidate"
    assert (bench.drafter.version, bench.turns.locked()) == (1, False)
    monkeypatch.setattr(families, "load", real)

    def digest(_: Path) -> str:
        raise OSError(number, "the system's word")

    with monkeypatch.context() as failing:
        failing.setattr("daemon.learning.manifest.digest", digest)
        with pytest.raises(TemporaryError, match="the system's word"):
            await bench.promote(version)
    assert bench.stage(version)[0] == "candidate"
    assert await bench.promote(version) == ModelPromoted()


async def test_a_candidate_that_says_something_else_than_to_the_judge_is_turned_down(
    bench: Bench, spoken: list[Utterance]
) -> None:
    for heard, event in ((spoken[0].text, ModelPromoted()), ("zzz qqq xxx", ModelRejected())):
        version = bench.trained()
        against = int(bench.drafter.version or 0)
        await judged(bench.registry.folder(version), spoken, heard)
        assert await bench.promote(version, against) == event
    assert "something else" in str(bench.stage(version)[1])


async def test_a_candidate_is_tried_in_a_thread_that_ends(
    bench: Bench, spoken: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thread that ever ran a model keeps megabytes; those of a pool would, one after the other, for ever."""
    real = bench.sources.make
    threads: list[threading.Thread] = []

    def make(options: Any) -> Transcriber:
        model = real(options)
        transcribe = model.transcribe

        def noted(batch: Any) -> Any:
            threads.append(threading.current_thread())
            return transcribe(batch)

        monkeypatch.setattr(model, "transcribe", noted, raising=False)
        return model

    monkeypatch.setattr(bench.sources, "make", make)
    version = bench.trained()
    await judged(bench.registry.folder(version), spoken, spoken[0].text)
    assert await bench.promote(version) == ModelPromoted()
    assert threads
    for thread in set(threads):
        thread.join(10)
        assert not thread.is_alive()


async def judged(folder: Path, spoken: list[Utterance], heard: str) -> None:
    """Data and evidence of a version: one clip to train on, one held out, and what the judge heard in that."""

    async def read(_: str, name: str) -> Any:
        return spoken[int(name)].audio

    samples = [
        Sample(f"clip-{n}", "run", str(n), f"tape-{n}", side, "extraction", "teny roa", "md5", 2.0, "label")
        for n, side in enumerate((Side.HELD_OUT, Side.TRAIN))
    ]
    await freeze(samples, read, folder / "data")
    evidence = {"clips": [{"clip_id": "clip-0", "candidate": {"text": heard, "flags": []}}]}
    (folder / "evidence.json").write_text(json.dumps(evidence))


async def test_where_memory_does_not_hold_both_drafting_waits_for_the_load(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = bench.trained()
    loads: list[tuple[int | None, bool]] = []
    real = bench.sources.make

    def make(options: Any) -> Transcriber:
        loads.append((bench.drafter.version, bench.turns.locked()))
        if bench.drafter.version is not None:
            raise MemoryError
        return real(options)

    monkeypatch.setattr(bench.sources, "make", make)
    assert await bench.promote(version) == ModelPromoted()
    assert loads == [(1, False), (None, True)]
    assert bench.drafter.version == version


async def test_where_it_does_not_fit_alone_the_old_model_comes_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = bench.trained()
    real = bench.sources.make

    def make(options: Any) -> Transcriber:
        if str(options["model"]) != str(BASE):
            raise MemoryError
        return real(options)

    monkeypatch.setattr(bench.sources, "make", make)
    assert await bench.promote(version) == ModelRejected()
    assert "does not fit" in str(bench.stage(version)[1])
    assert (bench.drafter.version, bench.drafter.model.name) == (1, str(BASE))
    assert not bench.turns.locked()
    assert bench.stage(1)[0] == "live"


async def test_where_not_even_the_old_model_fits_nobody_is_turned_down(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else has the memory: that says nothing of the candidate."""
    version = bench.trained()

    def make(_: Any) -> Transcriber:
        raise MemoryError

    with monkeypatch.context() as full:
        full.setattr(bench.sources, "make", make)
        with pytest.raises(TemporaryError, match="Not even the model that was there"):
            await bench.promote(version)
    assert (bench.stage(version)[0], bench.turns.locked()) == ("candidate", False)
    assert await bench.promote(version) == ModelPromoted()


@pytest.mark.parametrize("error", [ValueError("a shape"), KeyError("a layer"), OSError("a file")])
async def test_whatever_a_library_raises_turns_the_candidate_down_and_ends_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    version = bench.trained()

    def make(_: Any) -> Transcriber:
        raise error

    monkeypatch.setattr(bench.sources, "make", make)
    assert await bench.promote(version) == ModelRejected()
    assert type(error).__name__ in str(bench.stage(version)[1])
    assert (bench.drafter.version, bench.stage(1)[0]) == (1, "live")


async def test_evidence_that_is_none_turns_the_candidate_down(bench: Bench) -> None:
    version = bench.trained()
    (bench.registry.folder(version) / "evidence.json").write_text('{"clips": [{}]}')
    assert await bench.promote(version) == ModelRejected()
    assert (bench.drafter.version, bench.stage(1)[0]) == (1, "live")


async def test_a_roll_back_makes_the_one_before_live_and_a_swap_follows(bench: Bench) -> None:
    version = bench.trained()
    assert await bench.promote(version) == ModelPromoted()
    assert await bench.promoter.roll_back(RollBack(1, "not the live one")) == SweepDue()
    assert await bench.promoter.roll_back(RollBack(version, "people change more")) == ModelPromoted()
    assert (bench.stage(1)[0], bench.stage(version)) == ("live", ("rejected", "people change more"))
    assert bench.drafter.version == version, "the next look finds that another one is live"
    assert await bench.promoter.swap(Swap(1)) == ModelSwapped()
    assert bench.drafter.version == 1
    assert await bench.promoter.roll_back(RollBack(1, "a base")) == SweepDue()


async def test_a_swap_to_what_a_promotion_is_loading_loads_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another look may find the new version live before the promotion has put it into memory."""
    version = bench.trained()
    loads: list[str] = []
    real = bench.sources.make

    def make(options: Any) -> Transcriber:
        loads.append(str(options["model"]))
        return real(options)

    monkeypatch.setattr(bench.sources, "make", make)
    await bench.turns.acquire()
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        promoting = tasks.create_task(bench.promote(version))
        while bench.stage(version)[0] != "live":  # noqa: ASYNC110 - the database does not ring
            await asyncio.sleep(0.02)
        swapping = tasks.create_task(bench.promoter.swap(Swap(version)))
        await asyncio.sleep(0.1)
        bench.turns.release()
    assert (promoting.result(), swapping.result()) == (ModelPromoted(), ModelSwapped())
    assert len(loads) == 1


async def test_a_swap_that_waited_for_a_promotion_does_not_undo_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the new one is loaded alone nothing is in memory, and another look asks for what is live: the old one."""
    version = bench.trained()
    real = bench.sources.make
    swaps: list[asyncio.Task[Any]] = []
    loop = asyncio.get_running_loop()

    def make(options: Any) -> Transcriber:
        if bench.drafter.version is not None:
            raise MemoryError
        loop.call_soon_threadsafe(lambda: swaps.append(loop.create_task(bench.promoter.swap(Swap(1)))))
        return real(options)

    monkeypatch.setattr(bench.sources, "make", make)
    assert await bench.promote(version) == ModelPromoted()
    assert [await swap for swap in swaps] == [SweepDue()]
    assert bench.drafter.version == version


async def test_what_a_failed_load_had_in_memory_is_free_when_its_error_is_heard(bench: Bench) -> None:
    """Even in the handler: a device that is full has no room for what an error's frames hold."""

    class Half:
        """A model, so far."""

    halves: list[weakref.ref[Half]] = []

    def make() -> Transcriber:
        half = Half()
        halves.append(weakref.ref(half))
        raise MemoryError

    for load in (bench.drafter.prepare, bench.drafter.load):
        with pytest.raises(MemoryError):
            await load(make)
    assert [half() for half in halves] == [None, None]


async def test_a_verdict_against_a_version_that_is_live_no_more_counts_for_nothing(bench: Bench) -> None:
    first, second = bench.trained(), bench.trained()
    assert await bench.promote(first) == ModelPromoted()
    assert await bench.promote(second, against=1) == SweepDue()
    assert bench.stage(second)[0] == "candidate"
    assert bench.drafter.version == first


async def test_swap_follows_what_somebody_else_made_live(bench: Bench) -> None:
    version = bench.trained()
    await bench.ledger.promote(version, expected=None, reason="by hand")
    assert await bench.promoter.swap(Swap(version)) == ModelSwapped()
    assert bench.drafter.version == version


async def test_a_live_version_that_this_host_lacks_leaves_it_waiting_with_a_reason(bench: Bench) -> None:
    version = bench.trained(published=False)
    await bench.ledger.promote(version, expected=None, reason="by hand")
    assert await bench.promoter.swap(Swap(version)) is None
    assert "is not on this host" in str(bench.promoter.trouble)
    assert bench.drafter.version == 1
    bench.publish(version)
    assert await bench.promoter.swap(Swap(version)) == ModelSwapped()
    assert bench.promoter.trouble is None


async def test_the_folder_of_another_model_is_not_served(bench: Bench) -> None:
    """As when a state directory comes from another project, whose versions bear the same numbers."""
    version = bench.trained()
    bench.db.execute("update model_versions set fingerprint = 'of another' where id = %s", [version])
    assert await bench.promote(version) == ModelRejected()
    assert "holds another model" in str(bench.stage(version)[1])
    assert bench.drafter.version == 1


async def test_reject_and_what_is_kept(bench: Bench) -> None:
    """After three promotions the weights of the first are gone, its facts are not; those of the one before stay."""
    turned_down = bench.trained()
    assert await bench.promoter.reject(Reject(turned_down, "not better")) == ModelRejected()
    assert bench.stage(turned_down) == ("rejected", "not better")
    versions = [bench.trained() for _ in range(3)]
    live = 1
    for version in versions:
        assert await bench.promote(version, live) == ModelPromoted()
        live = version
    whole: Callable[[int], bool] = bench.registry.whole
    assert [whole(v) for v in (turned_down, *versions)] == [False, False, True, True]
    assert bench.registry.read_facts(versions[0]) == {}
