from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.asr.chunking import cut, joined, stitch
from daemon.asr.transcriber import SAMPLE_RATE, Draft


@given(
    length=st.integers(0, 5000),
    longest=st.integers(2, 900),
    seed=st.integers(0, 99),
    gaps=st.lists(st.integers(0, 4999), max_size=4),
)
def test_every_sample_is_in_exactly_one_piece(length: int, longest: int, seed: int, gaps: list[int]) -> None:
    audio = np.random.default_rng(seed).standard_normal(length).astype(np.float32)
    for gap in gaps:
        audio[gap : gap + 300] = 0
    pieces = cut(audio, longest)
    assert np.array_equal(np.concatenate(pieces), audio)
    assert all(len(piece) <= longest for piece in pieces)
    assert all(len(piece) >= longest // 2 for piece in pieces[:-1]), "a window is never cut in its first half"
    assert len(pieces) == 1 or all(len(piece) for piece in pieces)


def test_the_cut_falls_into_the_pause() -> None:
    """Words around, a quarter of a second of near silence at 2.2 s: the cut lies inside it."""
    audio = np.random.default_rng(1).standard_normal(5 * SAMPLE_RATE).astype(np.float32) * 0.2
    pause = slice(int(2.2 * SAMPLE_RATE), int(2.45 * SAMPLE_RATE))
    audio[pause] *= 0.01
    first = cut(audio, 3 * SAMPLE_RATE)[0]
    assert pause.start + SAMPLE_RATE // 20 < len(first) < pause.stop - SAMPLE_RATE // 20


def test_of_equal_silences_the_latest_is_taken_so_that_windows_are_well_filled() -> None:
    audio = np.full(4 * SAMPLE_RATE, 0.1, dtype=np.float32)
    for start in (1.7, 2.5):
        audio[int(start * SAMPLE_RATE) : int((start + 0.3) * SAMPLE_RATE)] = 0
    assert 2.5 < len(cut(audio, 3 * SAMPLE_RATE)[0]) / SAMPLE_RATE < 2.8


def test_audio_that_fits_stays_whole() -> None:
    audio = np.zeros(100, dtype=np.float32)
    assert [len(piece) for piece in cut(audio, 100)] == [100]


@pytest.mark.parametrize(
    ("texts", "whole"), [([" a ", "", "b"], "a b"), ([], ""), (["", " "], ""), (["a\u0302", "b"], "a\u0302 b")]
)
def test_stitch(texts: list[str], whole: str) -> None:
    assert stitch(texts) == whole


def test_the_search_for_a_pause_can_be_short() -> None:
    """Two silences: the better one lies before the last second of the window."""
    audio = np.full(4 * SAMPLE_RATE, 0.1, dtype=np.float32)
    audio[int(1.7 * SAMPLE_RATE) : 2 * SAMPLE_RATE] = 0
    audio[int(2.5 * SAMPLE_RATE) : int(2.8 * SAMPLE_RATE)] = 0.01
    assert 1.7 < len(cut(audio, 3 * SAMPLE_RATE)[0]) / SAMPLE_RATE < 2
    assert 2.5 < len(cut(audio, 3 * SAMPLE_RATE, SAMPLE_RATE)[0]) / SAMPLE_RATE < 2.8


def test_drafts_of_pieces_are_one() -> None:
    silent = Draft("", None, ("silence",))
    low = Draft("abc", -0.9, ("low-confidence",))
    whole = joined([silent, low, Draft("a", -0.1, ("truncated", "low-confidence", "chunked"))])
    assert (whole.text, whole.flags) == ("abc a", ("low-confidence", "truncated", "chunked"))
    assert whole.confidence == pytest.approx(-0.7)
    assert joined([silent, silent]) == Draft("", None, ("silence", "chunked"))
    assert joined([low]) == low
    sure, unsure = Draft("a", -0.1, (), 0.1), Draft("abc", -0.9, (), 0.6)
    assert joined([silent, sure, unsure]).uncertainty == pytest.approx(1 - math.exp(-0.7))
    assert joined([sure, low]).uncertainty == 0, "a guard does not believe all of it"
