"""The way of a clip through the daemon: a real queue and real audio, and ears that the test controls."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from supabase import AsyncClient
from witness import Database, claimed, clip_rows, drafted_by_machine, insert_clips, scalar, until

import daemon.turn
from daemon.asr.transcriber import SAMPLE_RATE, Draft, Waveform
from daemon.audio import AudioReader, BucketAudio, FirstOf, FolderAudio, UnreadableAudio
from daemon.clips import ClipStore
from daemon.decode import Decoder
from daemon.errors import TemporaryError
from daemon.local.sockets import free_port
from daemon.local.speech import noise, wav_bytes
from daemon.local.stack import LocalStack
from daemon.pipeline import Pipeline
from daemon.ports import Claim, PipelineSettings, Request, Tally

RUN = "00000000-0000-4000-8000-000000000001"
OTHER_RUN = "00000000-0000-4000-8000-000000000002"
CLIPS = 12
SETTINGS = PipelineSettings(first_share=1, batch_clips=4, claim_clips=8)
GUARD_S = 30.0


def name(i: int) -> str:
    return f"clips/{i:02}.wav"


def samples(i: int) -> int:
    """Every clip has a length of its own, by which the ears know it."""
    return SAMPLE_RATE // 2 + 160 * i


def record(run: Path, i: int) -> None:
    """Let a clip's audio be there."""
    (run / name(i)).write_bytes(wav_bytes(noise(samples(i) / SAMPLE_RATE, seed=i)))


@dataclass
class Ears:
    """Hears each clip's number; before that, it does what the test asks."""

    before: Callable[[list[int]], Awaitable[None]] | None = None
    broken: bool = False
    batches: list[list[int]] = field(default_factory=list)

    async def transcribe(self, batch: Sequence[Waveform]) -> list[Draft]:
        numbers = [(len(wave) - samples(0)) // 160 for wave in batch]
        self.batches.append(numbers)
        if self.before:
            await self.before(numbers)
        return [Draft(f"clip {number}", confidence=-0.5) for number in numbers]

    async def probe(self) -> None:
        if self.broken:
            raise RuntimeError("device lost")


@pytest.fixture
def ears() -> Ears:
    return Ears()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run")
    (directory / "clips").mkdir()
    for i in range(CLIPS):
        record(directory, i)
    return directory


@pytest.fixture
async def reader(clean_stack: Any, run: Path) -> AsyncIterator[AudioReader]:
    bucket = BucketAudio(clean_stack.url, clean_stack.service_role_key)
    async with AudioReader(FirstOf([FolderAudio({RUN: run}), bucket]), Decoder(max_seconds=60)) as reader:
        yield reader


@pytest.fixture
def store(supabase_client: AsyncClient) -> ClipStore:
    return ClipStore(supabase_client, "mine")


@pytest.fixture
def other(supabase_client: AsyncClient) -> ClipStore:
    return ClipStore(supabase_client, "other")


@pytest.fixture
async def version(store: ClipStore) -> int:
    number, _ = await store.register("base", "f" * 64, {}, go_live=True)
    return number


@pytest.fixture
def clips(db: Database, version: int) -> list[str]:
    """Ids of the twelve clips, in the queue's order."""
    for i in range(CLIPS):
        insert_clips(db, RUN, [name(i)])
    return [str(i) for (i,) in db.execute("select id from clips order by file_name").fetchall()]


@pytest.fixture
def pipeline(store: ClipStore, reader: AudioReader, ears: Ears) -> Pipeline:
    return Pipeline(store, reader.read, ears, SETTINGS)


def reasons(db: Database) -> dict[str, str]:
    """Why clips were not drafted, by clip id."""
    return dict(db.execute("select clip_id::text, reason from draft_state where reason is not null").fetchall())


async def test_everything_is_drafted_in_order_and_nothing_is_held(
    pipeline: Pipeline, ears: Ears, version: int, clips: list[str], db: Database
) -> None:
    heard: list[Tally] = []
    assert await pipeline.turn(Request(version), heard.append) == Tally(written=CLIPS)
    assert ears.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert {0, 4, 8, 12} >= {tally.written for tally in heard} >= {4, 8, 12}
    assert heard[-1] == Tally(written=CLIPS)
    assert drafted_by_machine(db) == {clip: f"clip {i}" for i, clip in enumerate(clips)}
    assert claimed(db) == 0


async def test_a_long_queue_begins_with_small_batches(
    store: ClipStore, reader: AudioReader, ears: Ears, version: int, clips: list[str]
) -> None:
    """So that the first draft comes soon; what fits into one batch is one."""
    pipeline = Pipeline(store, reader.read, ears, PipelineSettings(batch_clips=4, claim_clips=CLIPS))
    assert await pipeline.turn(Request(version)) == Tally(written=CLIPS)
    assert ears.batches == [[0], [1, 2], [3, 4, 5, 6], [7, 8, 9, 10], [11]]
    ears.batches.clear()
    pipeline = Pipeline(store, reader.read, ears, PipelineSettings(batch_clips=CLIPS))
    await store.register("other", "e" * 64, {}, go_live=True)
    assert await pipeline.turn(Request(version + 1)) == Tally(written=CLIPS)
    assert ears.batches == [list(range(CLIPS))]


async def test_a_turn_ends_after_so_many_batches(
    pipeline: Pipeline, ears: Ears, version: int, clips: list[str], db: Database
) -> None:
    """Whole claims are planned: two batches fit into one of them."""
    assert await pipeline.turn(Request(version, batches=1)) == Tally(written=8)
    assert await pipeline.turn(Request(version, batches=9)) == Tally(written=4)
    assert await pipeline.turn(Request(version)) == Tally()


async def test_the_next_batch_is_read_while_this_one_is_on_the_device(
    store: ClipStore, reader: AudioReader, ears: Ears, version: int, clips: list[str]
) -> None:
    """The first batch is not answered before a clip of the second was asked for."""
    asked = asyncio.Event()

    async def read(run_id: str, file_name: str) -> Waveform:
        if file_name == name(4):
            asked.set()
        return await reader.read(run_id, file_name)

    async def before(numbers: list[int]) -> None:
        async with asyncio.timeout(GUARD_S):
            await asked.wait()

    ears.before = before
    assert await Pipeline(store, read, ears, SETTINGS).turn(Request(version)) == Tally(written=CLIPS)


SUBMITTING = "select count(*) from pg_stat_activity where state = 'active' and query ~ 'ambara_submit' "
SUBMITTING += "and pid <> pg_backend_pid()"


@pytest.fixture
def holder(clean_stack: Any) -> Iterator[psycopg.Connection[Any]]:
    """Holds every submission up, until it is rolled back."""
    with psycopg.connect(clean_stack.db_url) as holder:
        holder.execute("lock table drafts in share mode")
        yield holder
        holder.rollback()


async def test_drafts_are_written_while_the_next_batches_are_on_the_device(
    pipeline: Pipeline,
    ears: Ears,
    version: int,
    clips: list[str],
    db: Database,
    holder: psycopg.Connection[Any],
) -> None:
    """The third batch is not answered before the first was seen on its way to the database."""

    async def before(numbers: list[int]) -> None:
        if 8 in numbers:
            await until(lambda: scalar(db, SUBMITTING), "a submission under way")
            holder.rollback()

    ears.before = before
    async with asyncio.timeout(GUARD_S):
        assert await pipeline.turn(Request(version)) == Tally(written=CLIPS)


async def test_no_more_than_two_batches_wait_to_be_written_beside_the_one_on_the_device(
    store: ClipStore,
    reader: AudioReader,
    ears: Ears,
    version: int,
    clips: list[str],
    holder: psycopg.Connection[Any],
) -> None:
    pipeline = Pipeline(store, reader.read, ears, PipelineSettings(first_share=1, batch_clips=2, claim_clips=CLIPS))
    async with asyncio.timeout(GUARD_S), asyncio.TaskGroup() as tasks:
        turn = tasks.create_task(pipeline.turn(Request(version)))
        await until(lambda: len(ears.batches) >= 3, "three batches heard")
        await asyncio.sleep(0.3)  # whoever would go on has gone on
        assert len(ears.batches) == 3
        holder.rollback()
    assert turn.result() == Tally(written=CLIPS)


async def test_a_submission_that_fails_ends_the_turn_whatever_is_on_the_device(
    pipeline: Pipeline, ears: Ears, version: int, clips: list[str], db: Database, refuse: Callable[[str], None]
) -> None:
    """What was written before stays, and nothing is held."""
    refuse("57P01")

    async def before(numbers: list[int]) -> None:
        if 8 in numbers:
            await asyncio.Event().wait()

    ears.before = before
    async with asyncio.timeout(GUARD_S):
        with pytest.raises(TemporaryError) as caught:
            await pipeline.turn(Request(version))
    assert caught.value.reason == "database-away"
    assert (reasons(db), claimed(db)) == ({}, 0)
    assert drafted_by_machine(db).keys() == set(clips[:4])


async def test_a_turn_that_is_cancelled_while_it_writes_holds_nothing(
    pipeline: Pipeline, ears: Ears, version: int, clips: list[str], db: Database, holder: psycopg.Connection[Any]
) -> None:
    """Whether the statement that was on its way is carried out or not."""
    async with asyncio.timeout(GUARD_S), asyncio.TaskGroup() as tasks:
        turn = tasks.create_task(pipeline.turn(Request(version)))
        await until(lambda: scalar(db, SUBMITTING) and len(ears.batches) == 3, "a submission, and all heard")
        turn.cancel()
        await asyncio.sleep(0.1)  # the cancellation has arrived everywhere
        holder.rollback()
    await until(lambda: not scalar(db, SUBMITTING), "nothing on its way")
    assert claimed(db) == 0
    assert drafted_by_machine(db).keys() <= set(clips[:4])


async def test_no_more_audio_is_held_than_two_batches(
    store: ClipStore, reader: AudioReader, ears: Ears, version: int, clips: list[str]
) -> None:
    """The one on the device, and the next: the reader stops there, and what was heard is let go of at once."""
    held: set[str] = set()
    most = 0

    async def read(run_id: str, file_name: str) -> Waveform:
        nonlocal most
        wave = await reader.read(run_id, file_name)
        held.add(file_name)
        most = max(most, len(held))
        weakref.finalize(wave, held.discard, file_name)
        return wave

    async def before(numbers: list[int]) -> None:
        if 0 in numbers:
            await until(lambda: len(held) >= 8, "the next batch read")
            await asyncio.sleep(0.3)  # whoever would go on has gone on

    ears.before = before
    assert await Pipeline(store, read, ears, SETTINGS).turn(Request(version)) == Tally(written=CLIPS)
    assert most == 8


class Asked(ClipStore):
    """Remembers how many clips were asked for."""

    limits: list[int]

    async def claim(self, version: int, limit: int, lease_s: float, **more: Any) -> list[Claim]:
        self.limits.append(limit)
        return await super().claim(version, limit, lease_s, **more)


async def test_more_is_claimed_in_a_backlog_and_before_all_is_read(
    supabase_client: AsyncClient, reader: AudioReader, ears: Ears, version: int, clips: list[str]
) -> None:
    store = Asked(supabase_client, "mine")
    store.limits = []
    settings = PipelineSettings(first_share=1, batch_clips=2, claim_clips=4)
    assert await Pipeline(store, reader.read, ears, settings).turn(Request(version)) == Tally(written=CLIPS)
    assert store.limits == [4, 14, 4], "a few; up to four times as many, because those did not empty the queue; the end"


NEW = 100
"""The number of a clip that comes later."""


class Looking(ClipStore):
    """Tells when somebody has looked for the newest clips."""

    looks = 0
    enough = 0
    looked_enough = asyncio.Event()

    async def claim_newest(self, *arguments: Any) -> tuple[int | None, list[Claim]]:
        found = await super().claim_newest(*arguments)
        self.looks += 1
        if self.looks >= self.enough:
            self.looked_enough.set()
        return found

    async def looked(self) -> None:
        """Wait until the turn has taken in what a look found that began from now on: until the next one is answered.

        One more may be on its way.
        """
        self.enough, self.looked_enough = self.looks + 3, asyncio.Event()
        await self.looked_enough.wait()


@pytest.fixture
def looking(supabase_client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> Looking:
    monkeypatch.setattr(daemon.turn, "LOOK_S", 0.01)
    monkeypatch.setattr(daemon.turn, "A_BATCH", 0.0)
    return Looking(supabase_client, "mine")


ALL_AT_ONCE = PipelineSettings(first_share=1, batch_clips=2, claim_clips=100)
"""So many are claimed at first that nothing else finds those that come."""


async def test_a_clip_that_comes_while_many_wait_goes_next(
    looking: Looking, reader: AudioReader, ears: Ears, version: int, clips: list[str], run: Path, db: Database
) -> None:
    """By itself, and before the batch that is read already, though it is the youngest of all."""
    record(run, NEW)
    read = asyncio.Event()

    async def reading(run_id: str, file_name: str) -> Waveform:
        wave = await reader.read(run_id, file_name)
        if file_name == name(NEW):
            asyncio.get_running_loop().call_later(0.2, read.set)  # until it stands in its place
        return wave

    async def before(numbers: list[int]) -> None:
        if 0 in numbers:
            insert_clips(db, RUN, [name(NEW)])
            await read.wait()

    ears.before = before
    tally = await Pipeline(looking, reading, ears, ALL_AT_ONCE).turn(Request(version))
    assert tally == Tally(written=CLIPS + 1)
    assert ears.batches[:3] == [[0, 1], [NEW], [2, 3]]
    assert [number for batch in ears.batches for number in batch if number != NEW] == list(range(CLIPS))


async def test_a_clip_that_comes_while_the_device_waits_for_audio_is_drafted_at_once(
    looking: Looking, reader: AudioReader, ears: Ears, version: int, clips: list[str], run: Path, db: Database
) -> None:
    """Not after the batch whose audio drips in."""
    record(run, NEW)
    idle, heard = asyncio.Event(), asyncio.Event()

    async def reading(run_id: str, file_name: str) -> Waveform:
        if file_name == name(2):
            async with asyncio.timeout(GUARD_S):
                await idle.wait()  # the first batch is done by the time that the new row is found
                insert_clips(db, RUN, [name(NEW)])
                await heard.wait()
        return await reader.read(run_id, file_name)

    async def before(numbers: list[int]) -> None:
        (heard if NEW in numbers else idle).set()

    ears.before = before
    tally = await Pipeline(looking, reading, ears, ALL_AT_ONCE).turn(Request(version))
    assert tally == Tally(written=CLIPS + 1)
    assert ears.batches[:3] == [[0, 1], [NEW], [2, 3]]


async def test_a_stream_of_new_clips_keeps_nobody_waiting(
    looking: Looking, reader: AudioReader, ears: Ears, version: int, clips: list[str], run: Path, db: Database
) -> None:
    """One comes with each batch; every second batch is of those that were there."""
    for i in range(NEW, NEW + 5):
        record(run, i)

    async def before(numbers: list[int]) -> None:
        if (new := NEW + len(ears.batches) - 1) < NEW + 5:
            insert_clips(db, RUN, [name(new)])
            await asyncio.sleep(0.2)

    ears.before = before
    tally = await Pipeline(looking, reader.read, ears, ALL_AT_ONCE).turn(Request(version))
    assert tally == Tally(written=CLIPS + 5)
    only_new = [min(batch) >= NEW for batch in ears.batches]
    assert any(only_new)
    assert not any(one and two for one, two in pairwise(only_new[:-1]))


@pytest.mark.parametrize("told", [0.5, 4.0])
async def test_a_long_clip_that_comes_waits_behind_the_others(
    looking: Looking,
    reader: AudioReader,
    ears: Ears,
    version: int,
    clips: list[str],
    run: Path,
    db: Database,
    told: float,
) -> None:
    """Whether its row tells the truth or not."""
    record(run, LONG)

    async def before(numbers: list[int]) -> None:
        if 0 in numbers:
            with db.transaction():  # a claim in between would be one of another row
                insert_clips(db, RUN, [name(LONG)])
                db.execute("update clips set duration_sec = %s where file_name = %s", [told, name(LONG)])
            await looking.looked()

    ears.before = before
    settings = replace(ALL_AT_ONCE, batch_clips=4, batch_seconds=2.8)
    tally = await Pipeline(looking, reader.read, ears, settings).turn(Request(version))
    assert tally == Tally(written=CLIPS + 1)
    known = [[number < CLIPS for number in batch] for batch in ears.batches]
    assert known == sorted(known, reverse=True), "the short ones, then the pieces"
    assert claimed(db) == 0


async def test_a_version_that_goes_live_ends_the_turn_however_much_is_claimed(
    looking: Looking, reader: AudioReader, ears: Ears, version: int, clips: list[str], db: Database
) -> None:
    """What was read is drafted, and the rest is left to the other version."""

    async def before(numbers: list[int]) -> None:
        if 0 in numbers:
            await looking.register("better", "e" * 64, {}, go_live=True)
            await looking.looked()

    ears.before = before
    tally = await Pipeline(looking, reader.read, ears, ALL_AT_ONCE).turn(Request(version, batches=99))
    assert tally.written <= 4
    assert len(drafted_by_machine(db)) == tally.written
    assert claimed(db) == 0


async def test_a_turn_that_is_cancelled_gives_back_what_has_just_come(
    looking: Looking, reader: AudioReader, ears: Ears, version: int, clips: list[str], run: Path, db: Database
) -> None:
    record(run, NEW)
    came = asyncio.Event()

    async def reading(run_id: str, file_name: str) -> Waveform:
        if file_name == name(NEW):
            came.set()
        return await reader.read(run_id, file_name)

    async def before(numbers: list[int]) -> None:
        insert_clips(db, RUN, [name(NEW)])
        await asyncio.sleep(GUARD_S)

    ears.before = before
    async with asyncio.TaskGroup() as tasks:
        turn = tasks.create_task(Pipeline(looking, reading, ears, ALL_AT_ONCE).turn(Request(version)))
        await came.wait()
        assert claimed(db) == CLIPS + 1
        turn.cancel()
    assert turn.cancelled()
    assert claimed(db) == 0


LONG = 350
"""The number of a clip of 4 s."""
LONG_SETTINGS = PipelineSettings(first_share=1, batch_clips=4, claim_clips=64, batch_seconds=2.8)
"""A clip of 4 s exceeds what may be on the device at a time, four of the others do not."""


@pytest.fixture
def long(run: Path, db: Database, clips: list[str]) -> None:
    """Two long clips that stand before the others. All rows say half a second."""
    for i in (LONG, LONG + 1):
        record(run, i)
        insert_clips(db, RUN, [name(i)])
    db.execute("update clips set priority = 1 where file_name = any (%s)", [[name(LONG), name(LONG + 1)]])
    db.execute("update clips set duration_sec = 0.5")


def shape(ears: Ears) -> list[list[int | str]]:
    """The batches; the pieces of long clips have lengths of their own."""
    return [[number if number < CLIPS else "piece" for number in batch] for batch in ears.batches]


async def test_rows_that_lie_make_no_short_clip_wait(
    store: ClipStore, reader: AudioReader, ears: Ears, version: int, long: None, db: Database
) -> None:
    pipeline = Pipeline(store, reader.read, ears, LONG_SETTINGS)
    assert await pipeline.turn(Request(version, batches=99)) == Tally(written=CLIPS + 1)
    assert shape(ears) == [[0, 1], [2, 3, 4, 5], [6, 7, 8, 9], [10, 11], ["piece"], ["piece"]]
    assert claimed(db) == 0, "the turn ends after a long clip when nothing came meanwhile"
    assert await pipeline.turn(Request(version, batches=99)) == Tally(written=1)
    (first,), (second,), *_ = ears.batches[4:]
    assert f"clip {first} clip {second}" in drafted_by_machine(db).values()
    assert len(drafted_by_machine(db)) == CLIPS + 2


async def test_a_person_who_asks_for_everything_gets_the_long_ones_as_well(
    store: ClipStore, reader: AudioReader, ears: Ears, version: int, long: None
) -> None:
    pipeline = Pipeline(store, reader.read, ears, LONG_SETTINGS)
    assert await pipeline.turn(Request(version, manual=True, runs=(RUN,))) == Tally(written=CLIPS + 2)


async def test_what_comes_while_a_long_clip_is_on_the_device_goes_before_its_next_piece(
    store: ClipStore, reader: AudioReader, ears: Ears, version: int, long: None, db: Database
) -> None:
    async def before(numbers: list[int]) -> None:
        if shape(ears)[-1] == ["piece"] and shape(ears).count(["piece"]) <= 2:
            db.execute("update clips set draft_transcription = 'synced again' where file_name = %s", [name(0)])

    ears.before = before
    tally = await Pipeline(store, reader.read, ears, LONG_SETTINGS).turn(Request(version, batches=99))
    assert shape(ears)[4:] == [["piece"], [0], ["piece"], [0], ["piece"], ["piece"]]
    assert (tally, claimed(db)) == (Tally(written=CLIPS + 4), 0)


async def test_a_version_that_goes_live_waits_for_one_piece_of_a_long_clip(
    store: ClipStore, reader: AudioReader, ears: Ears, version: int, long: None, db: Database
) -> None:
    """Nothing of the old version's is written then, and nothing is held."""

    async def before(numbers: list[int]) -> None:
        if shape(ears)[-1] == ["piece"]:
            await store.register("better", "e" * 64, {}, go_live=True)

    ears.before = before
    tally = await Pipeline(store, reader.read, ears, LONG_SETTINGS).turn(Request(version, batches=99))
    assert shape(ears)[4:] == [["piece"]]
    assert (tally, claimed(db)) == (Tally(written=CLIPS), 0)


async def test_a_database_that_is_away_for_a_moment_costs_a_long_clip_nothing(
    store: ClipStore,
    reader: AudioReader,
    ears: Ears,
    version: int,
    long: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away() -> tuple[int | None, int]:
        raise TemporaryError("It is away.", reason="database-away")

    monkeypatch.setattr(store, "snapshot", away)
    tally = await Pipeline(store, reader.read, ears, LONG_SETTINGS).turn(Request(version, batches=99))
    assert tally == Tally(written=CLIPS + 1)


async def test_a_piece_that_the_model_cannot_stand_is_its_clips_failure(
    store: ClipStore, reader: AudioReader, ears: Ears, version: int, long: None, db: Database
) -> None:
    async def before(numbers: list[int]) -> None:
        if shape(ears)[-2:] == [["piece"], ["piece"]]:
            raise RuntimeError("a shape that no one expected")

    ears.before = before
    tally = await Pipeline(store, reader.read, ears, LONG_SETTINGS).turn(Request(version, batches=99))
    assert tally == Tally(written=CLIPS, failed=1)
    assert (list(reasons(db).values()), claimed(db)) == (["model-fails"], 0)


async def test_one_clip_that_the_model_cannot_stand_takes_no_other_with_it(
    pipeline: Pipeline, ears: Ears, version: int, clips: list[str], db: Database
) -> None:
    async def before(numbers: list[int]) -> None:
        if 5 in numbers:
            raise RuntimeError("a shape that no one expected")

    ears.before = before
    assert await pipeline.turn(Request(version)) == Tally(written=CLIPS - 1, failed=1)
    assert drafted_by_machine(db).keys() == set(clips) - {clips[5]}
    assert reasons(db) == {clips[5]: "model-fails"}
    assert scalar(
        db, "select retry_at > now() and retry_at < now() + interval '1 hour' from draft_state where reason is not null"
    )


async def test_a_broken_device_ends_the_turn_and_blames_no_clip(
    pipeline: Pipeline, ears: Ears, version: int, clips: list[str], db: Database
) -> None:
    async def before(numbers: list[int]) -> None:
        raise RuntimeError("device lost")

    ears.before, ears.broken = before, True
    with pytest.raises(BaseExceptionGroup) as caught:
        await pipeline.turn(Request(version))
    assert caught.group_contains(RuntimeError, match="device lost")
    assert (reasons(db), claimed(db), drafted_by_machine(db)) == ({}, 0, {})


async def test_missing_audio_and_broken_audio_hold_nobody_up(
    pipeline: Pipeline, version: int, clips: list[str], db: Database, run: Path
) -> None:
    (run / "clips" / "text.wav").write_text("a letter", encoding="utf-8")
    insert_clips(db, RUN, ["clips/text.wav", "clips/nowhere.wav"])
    db.execute("update clips set priority = 1 where file_name in ('clips/text.wav', 'clips/nowhere.wav')")
    assert await pipeline.turn(Request(version)) == Tally(written=CLIPS, failed=2)
    assert drafted_by_machine(db).keys() == set(clips)
    assert sorted(reasons(db).values()) == ["audio-missing", "audio-not-audio"]


async def test_storage_that_is_away_ends_the_turn_after_one_batch(
    store: ClipStore, ears: Ears, version: int, clips: list[str], db: Database
) -> None:
    """What was tried stands back for a moment, so that no clip whose audio cannot be read keeps others waiting."""
    nobody = BucketAudio(f"http://127.0.0.1:{free_port()}", "key")
    async with AudioReader(nobody, Decoder(max_seconds=60)) as reader:
        with pytest.raises(TemporaryError) as caught:
            await Pipeline(store, reader.read, ears, SETTINGS).turn(Request(version))
    assert caught.value.reason == "storage-unavailable"
    assert reasons(db) == dict.fromkeys(clips[:4], "storage-unavailable")
    assert scalar(db, "select max(retry_at) < now() + interval '2 minutes' from draft_state")
    assert (claimed(db), ears.batches) == (0, [])


async def test_a_few_clips_alone_do_not_tell_that_storage_is_away(
    store: ClipStore, reader: AudioReader, ears: Ears, version: int, clips: list[str], db: Database
) -> None:
    """They may be all that a long queue begins with."""

    async def read(run_id: str, file_name: str) -> Waveform:
        if file_name == name(0):
            raise TemporaryError("Storage fails with this one.", reason="storage-unavailable")
        return await reader.read(run_id, file_name)

    settings = PipelineSettings(batch_clips=4, claim_clips=CLIPS)
    assert await Pipeline(store, read, ears, settings).turn(Request(version)) == Tally(written=CLIPS - 1, failed=1)
    assert drafted_by_machine(db).keys() == set(clips[1:])


async def test_while_storage_is_away_the_runs_of_directories_go_on(
    store: ClipStore, ears: Ears, version: int, clips: list[str], run: Path, db: Database
) -> None:
    """However many clips of the bucket stand before them."""
    insert_clips(db, OTHER_RUN, [name(i) for i in range(3 * CLIPS)])
    db.execute("update clips set priority = 9 where run_id = %s", [OTHER_RUN])
    nobody = BucketAudio(f"http://127.0.0.1:{free_port()}", "key")
    async with AudioReader(FirstOf([FolderAudio({RUN: run}), nobody]), Decoder(max_seconds=60)) as reader:
        with pytest.raises(TemporaryError) as caught:
            await Pipeline(store, reader.read, ears, SETTINGS, {RUN}).turn(Request(version))
    assert caught.value.reason == "storage-unavailable"
    assert drafted_by_machine(db).keys() == set(clips)
    assert (claimed(db), len(reasons(db))) == (0, 4)


async def test_clips_that_may_not_be_read_hold_nobody_up(
    store: ClipStore, reader: AudioReader, ears: Ears, version: int, clips: list[str], db: Database
) -> None:
    """However many stand before the others: a directory that is closed to the daemon is no Storage that is away."""
    insert_clips(db, OTHER_RUN, [name(i) for i in range(10 * CLIPS)])
    db.execute("update clips set priority = 9 where run_id = %s", [OTHER_RUN])

    async def read(run_id: str, file_name: str) -> Waveform:
        if run_id == OTHER_RUN:
            raise UnreadableAudio("Permission denied")
        return await reader.read(run_id, file_name)

    tally = await Pipeline(store, read, ears, SETTINGS).turn(Request(version))
    assert (tally.written, tally.failed) == (CLIPS, 10 * CLIPS)
    assert drafted_by_machine(db).keys() == set(clips)
    assert set(reasons(db).values()) == {"audio-unreadable"}


async def test_what_was_read_before_storage_went_away_is_drafted(
    store: ClipStore, reader: AudioReader, ears: Ears, version: int, clips: list[str], db: Database
) -> None:
    """Or clips on the device would be thrown away each time, and claimed again for ever."""
    db.execute("delete from clips where file_name >= %s", [name(4)])
    insert_clips(db, OTHER_RUN, [name(i) for i in range(CLIPS)])
    db.execute("update clips set priority = -1 where run_id = %s", [OTHER_RUN])

    async def read(run_id: str, file_name: str) -> Waveform:
        if run_id == OTHER_RUN:
            raise TemporaryError("Storage is away.", reason="storage-unavailable")
        return await reader.read(run_id, file_name)

    async def before(numbers: list[int]) -> None:
        await until(lambda: reasons(db), "the next batch cannot be read")

    ears.before = before
    with pytest.raises(TemporaryError) as caught:
        await Pipeline(store, read, ears, SETTINGS).turn(Request(version))
    assert caught.value.reason == "storage-unavailable"
    assert drafted_by_machine(db).keys() == set(clips[:4])
    assert (claimed(db), ears.batches) == (0, [[0, 1, 2, 3]])


async def test_a_slow_model_keeps_its_claims(
    store: ClipStore, other: ClipStore, reader: AudioReader, ears: Ears, version: int, clips: list[str], db: Database
) -> None:
    """The batches take several leases, and nobody else gets hold of their clips meanwhile."""
    lease_s = 1.0
    stolen: list[str] = []
    ends = "select max(lease_until) from draft_state where worker = 'mine'"

    async def before(numbers: list[int]) -> None:
        end = scalar(db, ends)
        await until(lambda: scalar(db, "select now() > %s + interval '1 second'", end), "two leases passed")
        stolen.extend(claim.clip_id for claim in await other.claim(version, 100, 60))

    ears.before = before
    settings = PipelineSettings(batch_clips=CLIPS, claim_clips=CLIPS, lease_s=lease_s)
    tally = await Pipeline(store, reader.read, ears, settings).turn(Request(version))
    assert (stolen, tally) == ([], Tally(written=CLIPS))


async def test_a_turn_that_is_cancelled_gives_its_claims_back(
    pipeline: Pipeline, ears: Ears, version: int, clips: list[str], db: Database
) -> None:
    busy = asyncio.Event()

    async def before(numbers: list[int]) -> None:
        if 4 in numbers:
            busy.set()
            await asyncio.Event().wait()

    ears.before = before
    async with asyncio.timeout(GUARD_S), asyncio.TaskGroup() as tasks:
        turn = tasks.create_task(pipeline.turn(Request(version)))
        await busy.wait()
        await until(lambda: len(drafted_by_machine(db)) == 4, "the batch before it written")
        assert claimed(db) > 0
        turn.cancel()
    assert claimed(db) == 0
    assert drafted_by_machine(db).keys() == set(clips[:4])


async def test_claims_of_a_turn_that_an_outage_ended_are_given_back_after_it(
    pipeline: Pipeline, ears: Ears, version: int, clips: list[str], db: Database, local_stack: LocalStack
) -> None:
    """Nobody counts a claimed clip as ready: left alone, they would wait for their lease and for the next sweep."""

    async def before(_numbers: list[int]) -> None:
        await asyncio.to_thread(local_stack.stop_gateway)

    ears.before = before
    with pytest.raises(TemporaryError) as caught:
        await pipeline.turn(Request(version))
    assert caught.value.reason == "database-away"
    assert claimed(db) > 0
    with pytest.raises(TemporaryError):
        await pipeline.give_back()
    await asyncio.to_thread(local_stack.start_gateway)
    await pipeline.give_back()
    assert claimed(db) == 0
    ears.before = None
    assert await pipeline.turn(Request(version)) == Tally(written=CLIPS)


async def test_a_turn_that_is_cancelled_while_it_claims_gives_back_what_it_gets(
    pipeline: Pipeline, version: int, clips: list[str], db: Database, clean_stack: Any
) -> None:
    """The statement is on its way and will be carried out: its answer is waited for."""
    under_way = "select count(*) from pg_stat_activity where state = 'active' and query ~ 'ambara_(claim|release)' "
    under_way += "and pid <> pg_backend_pid()"
    with psycopg.connect(clean_stack.db_url) as holder:
        holder.execute("select pg_advisory_xact_lock(hashtext('ambara_claim'))")
        async with asyncio.timeout(GUARD_S), asyncio.TaskGroup() as tasks:
            turn = tasks.create_task(pipeline.turn(Request(version)))
            await until(lambda: scalar(db, under_way), "the claim on its way")
            turn.cancel()
            await asyncio.sleep(0.1)  # the cancellation has arrived everywhere
            holder.rollback()
    await until(lambda: not scalar(db, under_way), "nothing on its way")
    assert claimed(db) == 0


@pytest.fixture
def refuse(db: Database, clips: list[str]) -> Iterator[Callable[[str], None]]:
    """Let the database refuse one of the drafts, with an error of this code."""

    def begin(code: str) -> None:
        db.execute(
            "create function refuse() returns trigger language plpgsql as $$ begin "
            f"if new.draft_transcription = 'clip 6' then raise 'not now' using errcode = '{code}'; end if; "
            "return new; end $$;"
            "create trigger refuse before update on clips for each row execute function refuse()".encode()
        )

    yield begin
    db.execute("drop trigger refuse on clips; drop function refuse")


async def test_a_draft_that_the_database_refuses_takes_no_other_with_it(
    pipeline: Pipeline, version: int, clips: list[str], db: Database, refuse: Callable[[str], None]
) -> None:
    refuse("23505")
    assert await pipeline.turn(Request(version)) == Tally(written=CLIPS - 1, failed=1)
    assert reasons(db) == {clips[6]: "database-error"}
    assert drafted_by_machine(db).keys() == set(clips) - {clips[6]}
    assert claimed(db) == 0


async def test_a_database_in_trouble_is_no_clips_fault(
    pipeline: Pipeline, version: int, clips: list[str], db: Database, refuse: Callable[[str], None]
) -> None:
    """It says that it is shutting down: nothing is noted, and the claims are given back."""
    refuse("57P01")
    with pytest.raises(TemporaryError) as caught:
        await pipeline.turn(Request(version))
    assert caught.value.reason == "database-away"
    assert (reasons(db), claimed(db)) == ({}, 0)


async def test_a_row_that_an_editor_holds_for_long_is_given_back(
    pipeline: Pipeline, ears: Ears, version: int, clips: list[str], db: Database, clean_stack: Any
) -> None:
    """It is neither waited for nor lost: the next turn drafts it."""
    with psycopg.connect(clean_stack.db_url) as holder:

        async def before(numbers: list[int]) -> None:
            holder.execute("select from clips where id = %s for update", [clips[2]])

        ears.before = before
        assert await pipeline.turn(Request(version, batches=1)) == Tally(written=7, dropped=1)
        holder.rollback()
    assert claimed(db) == 0
    ears.before = None
    assert await pipeline.turn(Request(version)) == Tally(written=5)
    assert len(clip_rows(db)) == len(drafted_by_machine(db)) == CLIPS
