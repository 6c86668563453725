"""What a daemon removes with time, and what it never does: real folders, real rows."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from daemon_process import daemon_process
from supabase import AsyncClient
from witness import scalar

from daemon.database import Database
from daemon.errors import PermanentError
from daemon.learning.keeper import Keeper
from daemon.learning.ledger import Ledger
from daemon.learning.registry import Registry
from daemon.learning.sources import Sources
from daemon.sections import ModelSettings, RetentionSettings
from daemon.supabase_client import connect, http_client

Db = psycopg.Connection[Any]
BYTES = 40_000
"""Of a version's weights and data together, about."""


class Host:
    """A daemon's state directory beside a database; its versions have weights of zeros."""

    def __init__(self, db: Db, client: AsyncClient, folder: Path) -> None:
        self.db = db
        self.registry = Registry(folder / "models")
        self.ledger = Ledger(Database(client), "keeper")
        self.sources = Sources(self.registry, ModelSettings())
        self.loaded: int | None = None

    def keeper(self, ledger: Ledger | None = None, **settings: Any) -> Keeper:
        return Keeper(ledger or self.ledger, self.sources, RetentionSettings(**settings), lambda: self.loaded)

    def version(self, stage: str, *, live_seq: int | None = None, pinned: bool = False, published: bool = True) -> int:
        """A version at a stage, with its folder here."""
        number = int(
            scalar(
                self.db,
                "insert into model_versions (name, fingerprint, kind, stage, live_seq, pinned, detail) "
                "values ('trained', gen_random_uuid()::text, 'trained', %s, %s, %s, '{\"made of\": {\"rate\": 1e-05}}')"
                " returning id",
                stage,
                live_seq,
                pinned,
            )
        )
        if published:
            self.folder(number)
        return number

    def folder(self, number: int, made_of: object = None) -> Path:
        """A version's folder as a training leaves it."""
        folder = self.registry.folder(number)
        for name in ("model/model.safetensors", "data/train/clip.wav"):
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_bytes(bytes(BYTES // 2))
        for log in ("train.log", "train.log.old", "evaluate.log"):
            (folder / log).write_text("words")
        self.registry.publish(number, {"made of": made_of or {"rate": 0.00001}})
        return folder

    def here(self) -> set[int]:
        """The versions that could serve."""
        return {number for number in self.registry.numbers() if self.registry.whole(number)}


@pytest.fixture
def host(db: Db, supabase_client: AsyncClient, tmp_path: Path) -> Host:
    return Host(db, supabase_client, tmp_path)


async def test_what_is_live_previous_pinned_in_the_making_or_in_use_stays(host: Host) -> None:
    """With settings that spare nothing, and while all of it is in somebody's hands at once."""
    host.version("retired", live_seq=1)
    pinned = host.version("rejected", pinned=True)
    hot = host.version("rejected", live_seq=2)
    elsewhere = host.version("retired", live_seq=3)
    judged = host.version("rejected")
    loading = host.version("rejected")
    before = host.version("retired", live_seq=4)
    host.version("rejected")
    live = host.version("live", live_seq=5)
    candidate = host.version("candidate")
    training = host.version("training")
    host.db.execute("select ambara_beat('another', %s)", [f'{{"version": {elsewhere}}}'])
    host.db.execute("""select ambara_beat('starting', '{"version": null}'), ambara_beat('old', '{}')""")
    host.loaded = hot
    stay = {pinned, hot, elsewhere, before, live, candidate, training}
    keeper = host.keeper(versions=0, gibibytes=1e-9)
    with host.sources.using(judged, live), host.sources.using(loading, judged):
        await keeper.turn()
        assert host.here() == stay | {judged, loading}
    with host.sources.using(judged):
        await keeper.turn()
        assert host.here() == stay | {judged}
    await keeper.turn()
    assert host.here() == stay
    for number in set(host.registry.numbers()) - stay:
        assert not [path for path in host.registry.folder(number).iterdir() if path.is_dir()]
        assert host.registry.read_facts(number) is not None
    assert not [path for path in host.registry.folder(1).parent.iterdir() if path.name.startswith(".")]


async def test_candidates_turned_down_one_after_the_other_do_not_fill_the_disk(host: Host) -> None:
    """No promotion comes for months, and the disk holds as much as the settings say."""
    live = host.version("live", live_seq=1)
    keeper = host.keeper(versions=2)
    turned_down = []
    for _ in range(6):
        turned_down.append(host.version("rejected"))
        await keeper.turn()
    assert host.here() == {live, *turned_down[-2:]}


async def test_further_versions_stay_while_there_are_bytes_for_them(host: Host) -> None:
    versions = [host.version("retired", live_seq=n) for n in range(1, 7)] + [host.version("live", live_seq=7)]
    await host.keeper(versions=4).turn()
    assert host.here() == set(versions[1:])
    room_for_four = 4.5 * max(host.registry.sizes().values()) / 2**30
    await host.keeper(versions=4, gibibytes=room_for_four).turn()
    assert host.here() == set(versions[3:])


async def test_they_make_way_for_a_training_that_needs_the_room(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """And for nothing less; what must stay never does."""
    versions = [host.version("retired", live_seq=n) for n in range(1, 5)] + [host.version("live", live_seq=5)]
    model = host.registry.folder(versions[-1]) / "model"
    usage = shutil.disk_usage(model)
    need = 3 * (BYTES // 2)

    def free(when_four_are_gone: int) -> None:
        def of(_: object) -> Any:
            return usage._replace(free=when_four_are_gone - BYTES * len(host.here()))

        monkeypatch.setattr(shutil, "disk_usage", of)

    keeper = host.keeper(versions=9)
    free(need + 5 * BYTES)
    await keeper.need_room(model)
    assert host.here() == set(versions)
    free(need + 2 * BYTES)
    await keeper.need_room(model)
    assert host.here() == set(versions[-2:])
    free(need + BYTES)
    with pytest.raises(PermanentError, match="make room"):
        await keeper.need_room(model)
    assert host.here() == set(versions[-2:])


async def test_what_is_not_of_this_database_is_left_alone(host: Host) -> None:
    """The project's database was emptied, or is another one: the weights on the disk are a person's to remove."""
    foreign = host.version("rejected", published=False)
    host.folder(foreign, made_of={"rate": 0.5})
    unknown = 77
    host.folder(unknown)
    own = host.version("rejected")
    live = host.version("live", live_seq=1)
    begun = host.registry.claim(live + 1, "a run that began since the database was asked")
    (begun / "data").mkdir()
    await host.keeper(versions=0).turn()
    assert host.here() == {foreign, unknown, live}
    assert own not in host.here()
    assert (begun / "data").is_dir()


async def test_a_run_that_failed_after_it_was_published_is_known_by_its_mark(host: Host) -> None:
    failed = host.version("rejected", published=False)
    host.db.execute("update model_versions set fingerprint = 'untrained:mark', detail = '{}' where id = %s", [failed])
    host.registry.claim(failed, "untrained:mark")
    host.folder(failed)
    live = host.version("live", live_seq=1)
    await host.keeper(versions=0).turn()
    assert host.here() == {live}


async def test_logs_go_with_age_and_only_where_the_weights_are_gone(host: Host) -> None:
    old, young, live = host.version("rejected"), host.version("rejected"), host.version("live", live_seq=1)
    then = time.time() - 40 * 86_400
    for number in (old, live):
        for log in host.registry.folder(number).glob("*.log*"):
            os.utime(log, (then, then))
    await host.keeper(versions=0, logs_days=41).turn()
    names = {number: {path.name for path in host.registry.folder(number).iterdir()} for number in (old, young, live)}
    assert names[old] == names[young] == {"train.log", "train.log.old", "evaluate.log", "training.json"}
    await host.keeper(versions=0, logs_days=39).turn()
    assert {path.name for path in host.registry.folder(old).iterdir()} == {"training.json"}
    assert {path.name for path in host.registry.folder(young).iterdir()} == names[young]
    assert {path.name for path in host.registry.folder(live).iterdir()} == names[live]


async def test_where_the_database_is_away_nothing_is_removed_and_nothing_raised(host: Host) -> None:
    versions = {host.version("rejected"), host.version("rejected"), host.version("live", live_seq=1)}
    async with http_client() as http:
        nobody = Ledger(Database(await connect("http://127.0.0.1:1", "eyJ.eyJ.x", http)), "keeper")
        await host.keeper(nobody, versions=0, drafts_days=1).turn()
    assert host.here() == versions


@pytest.fixture
def without_function(db: Db) -> Iterator[None]:
    """A database whose migrations are older than the daemon."""
    db.execute("alter function ambara_in_use() rename to ambara_not_yet")
    yield
    db.execute("alter function ambara_not_yet() rename to ambara_in_use")


@pytest.mark.usefixtures("without_function")
async def test_a_database_that_cannot_say_what_is_in_use_loses_nothing(host: Host) -> None:
    versions = {host.version("rejected"), host.version("live", live_seq=1)}
    await host.keeper(versions=0).turn()
    assert host.here() == versions


async def test_what_a_person_pins_while_it_is_thought_over_stays(host: Host) -> None:
    """Sizes are counted first, which takes its time; what is kept is asked for after that."""
    wanted, live = host.version("rejected"), host.version("live", live_seq=1)
    counted = host.registry.sizes

    def slowly() -> dict[int, int]:
        found = counted()
        host.db.execute("update model_versions set pinned = true where id = %s", [wanted])
        return found

    host.registry.sizes = slowly  # type: ignore[method-assign]
    await host.keeper(versions=0).turn()
    assert host.here() == {wanted, live}


async def test_two_turns_at_once_and_a_promotion_s_beside_them(host: Host) -> None:
    versions = [host.version("retired", live_seq=n) for n in range(1, 9)] + [host.version("live", live_seq=9)]
    keeper, other = host.keeper(versions=1), host.keeper(versions=1)
    async with asyncio.TaskGroup() as tasks:
        for each in (keeper, other, keeper):
            tasks.create_task(each.weights())
    assert host.here() == set(versions[-3:])


async def test_a_daemon_does_it_from_its_start(
    clean_stack: Any, db: Db, supabase_client: AsyncClient, tmp_path: Path
) -> None:
    host = Host(db, supabase_client, tmp_path / "state")
    old, pinned = host.version("rejected"), host.version("rejected", pinned=True)
    with daemon_process(clean_stack, tmp_path, retention={"versions": 0}) as daemon:
        told = daemon.wait_for("old versions removed")
        assert told["versions"] == [old]
        assert daemon.stop() == 0
    assert host.here() == {pinned}


def test_a_version_in_use_twice_is_in_use_until_both_are_done(host: Host) -> None:
    with host.sources.using(7):
        with host.sources.using(7, 8):
            assert host.sources.in_use == {7, 8}
        assert host.sources.in_use == {7}
        with pytest.raises(ValueError, match="x"), host.sources.using(9):
            raise ValueError("x")
    assert host.sources.in_use == set()
