"""What is held decoded, whatever the rows say."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from daemon.asr.transcriber import SAMPLE_RATE, Waveform
from daemon.audio import MissingAudio
from daemon.errors import PermanentError, TemporaryError
from daemon.loading import TOLERANCE, Loaded, Loader
from daemon.ports import Claim, PipelineSettings, Retry

BUDGET_S = 60.0
SETTINGS = PipelineSettings(batch_clips=4, batch_seconds=BUDGET_S, fetches=3)
REAL_S = st.floats(0.1, 200)
TOLD_S = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.floats(0.1, 200))
HONEST = REAL_S.flatmap(lambda real: st.tuples(st.floats(real - 0.01, real + 0.01), st.just(real)))
LYING = st.tuples(TOLD_S, REAL_S)


@dataclass
class Shelf:
    """Clips by name, each of a real length; counts how often each is read."""

    real_s: dict[str, float]
    reads: Counter[str] = field(default_factory=Counter)

    async def read(self, _run_id: str, file_name: str) -> Waveform:
        self.reads[file_name] += 1
        await asyncio.sleep(0)
        return np.broadcast_to(np.float32(0), round(self.real_s[file_name] * SAMPLE_RATE))  # of no size


def claim(name: str, told_s: float | None) -> Claim:
    return Claim(clip_id=name, run_id="run", file_name=name, duration_s=told_s, fence=1, attempts=0)


def drained(loader: Loader) -> list[Loaded]:
    """Everything that a loader has to give."""

    async def drain() -> list[Loaded]:
        loads = []
        while loader:
            loads.append(await loader.load())
        return loads

    return asyncio.run(drain())


def played(clips: list[tuple[float | None, float]]) -> tuple[list[Loaded], Shelf]:
    """Load clips, told and real seconds of each; they are named by their numbers."""
    shelf = Shelf({str(i): real for i, (_, real) in enumerate(clips)})
    loader = Loader(shelf.read, SETTINGS, {})
    loader.add(claim(str(i), told) for i, (told, _) in enumerate(clips))
    return drained(loader), shelf


def heard(loads: list[Loaded]) -> list[list[str]]:
    """The names in each batch."""
    return [[one.file_name for one, _ in batch] for load in loads for batch in load.batches]


@given(st.lists(HONEST | LYING, max_size=20))
def test_no_more_is_held_than_the_budget_or_one_long_clip(clips: list[tuple[float | None, float]]) -> None:
    loads, shelf = played(clips)
    assert sorted(name for batch in heard(loads) for name in batch) == sorted(shelf.real_s)
    assert max(shelf.reads.values(), default=0) <= 2
    for load in loads:
        seconds = [len(wave) / SAMPLE_RATE for batch in load.batches for _, wave in batch]
        assert len(seconds) <= 1 or sum(seconds) <= TOLERANCE * BUDGET_S + 0.01
        for batch in load.batches:
            longest = max(len(wave) / SAMPLE_RATE for _, wave in batch)
            assert len(batch) == 1 or len(batch) * longest <= TOLERANCE * BUDGET_S


@given(st.lists(HONEST | LYING, max_size=20))
def test_a_long_clip_waits_until_the_short_ones_are_read(clips: list[tuple[float | None, float]]) -> None:
    loads, shelf = played(clips)
    assert [load.is_long for load in loads] == sorted(load.is_long for load in loads)
    for load in loads:
        for name in heard([load])[0] if load.batches and not load.is_long else []:
            assert shelf.real_s[name] <= TOLERANCE * BUDGET_S


@given(st.lists(HONEST, min_size=1, max_size=20))
def test_rows_that_are_only_rounded_cost_nothing(clips: list[tuple[float | None, float]]) -> None:
    loads, shelf = played(clips)
    assert set(shelf.reads.values()) == {1}
    assert all(len(load.batches) == 1 for load in loads)


def test_one_whose_row_lies_takes_no_place_from_the_others_and_is_known_next_time() -> None:
    shelf = Shelf({"liar": 190.0, "a": 15.0, "b": 15.0, "c": 15.0})
    lengths: dict[str, float] = {}
    for reads in ({"liar": 2, "a": 1, "b": 1, "c": 1}, {"liar": 3, "a": 2, "b": 2, "c": 2}):
        loader = Loader(shelf.read, SETTINGS, lengths)
        loader.add([claim(name, 2.0 if name == "liar" else 15.0) for name in shelf.real_s])
        assert heard(drained(loader)) == [["a", "b", "c"], ["liar"]]
        assert (lengths, shelf.reads) == ({"liar": 190.0}, reads)


def test_what_is_given_up_waits_elsewhere() -> None:
    shelf = Shelf({"a": 3.0, "b": 190.0})
    loader = Loader(shelf.read, SETTINGS, {})
    loader.add(claim(name, shelf.real_s[name]) for name in "ab")
    assert loader.has_short
    assert [one.clip_id for one in loader.give_up()] == ["a", "b"]
    assert len(loader) == 0
    assert not loader.has_short


def test_what_is_longer_than_told_and_still_fits_is_heard_apart_from_the_short_ones() -> None:
    loads, shelf = played([(2.0, 2.0), (2.0, 40.0), (2.0, 2.0)])
    assert heard(loads) == [["0", "2"], ["1"]]
    assert set(shelf.reads.values()) == {1}


def test_what_cannot_be_read_is_told_and_waits_no_longer() -> None:
    errors = {
        "gone": MissingAudio(),
        "away": TemporaryError("It is away.", reason="away"),
        "bad": PermanentError("It is no sound.", reason="bad"),
    }

    async def read(_run_id: str, file_name: str) -> Waveform:
        raise errors[file_name]

    loader = Loader(read, SETTINGS, {})
    loader.add([claim(name, 2.0) for name in errors])
    (load,) = drained(loader)
    assert {failed.reason: failed.retry for failed in load.failures} == {
        "audio-missing": Retry.LATER,
        "away": Retry.SOON,
        "bad": Retry.NEVER,
    }
    assert (load.batches, load.put_off, load.is_long) == ([], 0, False)
