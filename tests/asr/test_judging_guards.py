"""Guards: what a lower word error rate may hide, and that chance alone does not trip them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from daemon.asr.judging import noise
from daemon.asr.judging.evidence import ClipEvidence, GuardFigure, Heard, Invented
from daemon.asr.judging.harm import guards, invented
from daemon.asr.transcriber import Draft
from daemon.asr.whisper.config import GuardSettings
from daemon.asr.whisper.guards import is_silent

QUIET = Invented(9, 0, 0)
SOUND = ("iray roa telo", ())


def clip(
    at: int = 0,
    *,
    live: tuple[str, tuple[str, ...]] = SOUND,
    candidate: tuple[str, tuple[str, ...]] = SOUND,
    recording: str = "r",
    words: int = 10,
    errors: tuple[int, int] = (2, 2),
) -> ClipEvidence:
    return ClipEvidence(
        str(at), recording, "extraction", "teny " * words, words, Heard(*live, errors[0]), Heard(*candidate, errors[1])
    )


def found(
    clips: Sequence[ClipEvidence], name: str, nothing: Invented = QUIET, anchor: Sequence[ClipEvidence] = ()
) -> GuardFigure:
    (figure,) = [guard for guard in guards(clips, anchor, nothing, 0.95) if guard.name.startswith(name)]
    return figure


def holds(guard: GuardFigure) -> bool:
    return guard.candidate <= guard.live + guard.tolerance


@pytest.mark.parametrize(
    ("live", "candidate", "passes"),
    [(0, 0, True), (0, 1, True), (0, 2, False), (5, 6, True), (5, 7, False), (9, 0, True)],
)
def test_one_sound_more_may_become_words_and_two_may_not(live: int, candidate: int, passes: bool) -> None:
    assert holds(found([clip()], "invented", Invented(9, live, candidate))) is passes


@pytest.mark.parametrize(
    ("draft", "counts"),
    [
        (Draft("Misaotra", -0.1), 1),
        (Draft("Misaotra", -0.1, ("chunked",)), 1),
        (Draft("Misaotra", -2.0, ("low-confidence",)), 0),
        (Draft("katsa katsa", -0.1, ("repetition", "chunked")), 0),
        (Draft(" ... ", -0.1), 0),
        (Draft("", None, ("silence",)), 0),
    ],
)
def test_invented_is_what_comes_without_a_warning(draft: Draft, counts: int) -> None:
    assert invented([draft, Draft("", None)], [draft, draft]) == Invented(2, counts, 2 * counts)


LOOP, EMPTY = ("teny teny teny", ("repetition",)), ("", ("silence",))


@pytest.mark.parametrize(("name", "bad"), [("drafts that loop", LOOP), ("empty drafts", EMPTY)])
@pytest.mark.parametrize(
    ("new", "mended", "passes"),
    [
        (0, 0, True),
        (1, 0, True),
        (2, 0, True),
        (3, 0, False),
        (5, 3, True),
        (9, 3, False),
        (0, 5, True),
        (20, 20, True),
    ],
)
def test_more_loops_or_empty_drafts_than_chance_explains(
    name: str, bad: tuple[str, tuple[str, ...]], new: int, mended: int, passes: bool
) -> None:
    clips = [clip(candidate=bad)] * new + [clip(live=bad)] * mended + [clip()] * 10 + [clip(live=bad, candidate=bad)]
    figure = found(clips, name)
    assert holds(figure) is passes
    assert figure.candidate == pytest.approx((new + 1) / len(clips))


def test_an_empty_draft_is_right_where_nobody_heard_a_word() -> None:
    silent = [clip(candidate=EMPTY, words=0)] * 5
    assert found([clip(), *silent], "empty").candidate == 0
    assert found([clip(), *silent, *[clip(candidate=EMPTY)] * 5], "empty").candidate == pytest.approx(5 / 6)


def recording(name: str, live: float, candidate: float, seed: int, clips: int = 10) -> list[ClipEvidence]:
    draw = np.random.default_rng(seed)
    heard = [(int(draw.binomial(10, live)), int(draw.binomial(10, candidate))) for _ in range(clips)]
    return [clip(at, recording=name, errors=errors) for at, errors in enumerate(heard)]


def test_one_recording_ruined_is_found_among_others_that_gain() -> None:
    good = [clip for at in range(5) for clip in recording(f"good {at}", 0.6, 0.1, at)]
    figure = found([*good, *recording("market.wav", 0.1, 0.7, 9)], "word error rate of the worst")
    assert figure.name == "word error rate of the worst recording (market.wav)"
    assert not holds(figure)
    assert holds(found(good, "word error rate of the worst"))


def test_a_recording_of_a_few_words_says_nothing() -> None:
    short = recording("few clips", 0.0, 1.0, 1, clips=4)
    wordless = [clip(recording="few words", words=5, errors=(0, 5)) for _ in range(5)]
    assert not [guard for guard in guards([*short, *wordless], (), QUIET, 0.95) if "worst" in guard.name]


def test_the_worst_of_many_recordings_does_not_look_ruined_by_chance() -> None:
    """A small honest gain, with luck in every recording, hardly ever trips the guard."""
    tripped = 0
    for seed in range(60):
        clips = [c for at in range(10) for c in recording(f"r{at}", 0.3, 0.28, 100 * seed + at)]
        tripped += not holds(found(clips, "word error rate of the worst"))
    assert tripped <= 3


def test_the_anchor_set_may_lose_one_in_a_hundred() -> None:
    def anchor(candidate: str) -> list[ClipEvidence]:
        return [clip(live=("teny " * 100, ()), candidate=(candidate, ()), words=100, errors=(0, 0))]

    name = "word error rate of the anchor set"
    assert holds(found([clip()], name, anchor=anchor("teny " * 99 + "x")))
    assert not holds(found([clip()], name, anchor=anchor("teny " * 98 + "x y")))
    assert not [guard for guard in guards([clip()], (), QUIET, 0.95) if "anchor" in guard.name]


def test_the_sounds_are_the_same_every_time_and_reach_the_model_where_they_should() -> None:
    assert all(np.array_equal(a, b) for a, b in zip(noise.steady(), noise.steady(), strict=True))
    sounds = (*noise.steady(), *noise.swelling())
    assert all(wave.dtype == np.float32 and np.abs(wave).max() < 1 for wave in sounds)
    assert all(is_silent(wave, GuardSettings()) for wave in noise.steady())
    assert not any(is_silent(wave, GuardSettings()) for wave in noise.swelling())
