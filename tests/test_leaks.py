"""What training must not see: held-out audio, held-out sentences, and what nearly is one."""

from __future__ import annotations

import time
from random import Random

import pytest

from daemon.learning.audiofolder import Entry
from daemon.learning.leaks import AUDIO, SAME_AUDIO, TEXT, leaks, notes
from daemon.learning.ports import Side

LONG = "mividy trondro telo izy androany maraina tany an-tsena lehibe ao Antsirabe"


def entry(clip: str, text: str, *, audio: str = "", side: Side = Side.TRAIN) -> Entry:
    """A clip with a sound of its own unless `audio` says which."""
    return Entry(clip, "run", "label", "tape", "extraction", side, text, "md5", audio or f"sound of {clip}", 3.0)


@pytest.mark.parametrize(
    ("held_out", "trained", "leaking"),
    [
        ("mividy trondro telo izy", "Mividy TRONDRO, telo izy!", True),  # equal after folding
        ("amen amen amen", "Amen, amen, amen.", False),  # three words recur everywhere
        ("mividy trondro telo izy", "mividy trondro dimy izy", False),  # a pattern, not a copy
        (LONG, LONG.replace("lehibe", "lehiby"), True),  # one letter in 74
        (LONG, LONG.replace("telo", "dimy").replace("androany", "omaly"), False),  # another sentence
        ("avy any an-tsena ry zareo androany", "avy any an-tsena ry zareo androan", False),  # too short to tell
        (LONG, LONG[:50], False),  # the beginning alone
        ("", "", False),
    ],
)
def test_texts(held_out: str, trained: str, leaking: bool) -> None:
    found = leaks([entry("a", trained), entry("b", "zavatra hafa no lazaina eto")], [entry("h", held_out)])
    assert found == ({"a": TEXT} if leaking else {})


def test_the_same_audio_is_named_before_the_same_text() -> None:
    judge = [entry("h", LONG, audio="same", side=Side.HELD_OUT)]
    training = [entry("a", "teny hafa", audio="same"), entry("b", LONG, audio="same"), entry("c", LONG), entry("d", "")]
    assert leaks(training, judge) == {"a": AUDIO, "b": AUDIO, "c": TEXT}


def test_without_a_held_out_clip_nothing_leaks() -> None:
    assert leaks([entry("a", LONG), entry("b", LONG)], []) == {}


def test_one_sound_with_several_texts_is_worth_a_note() -> None:
    training = [entry("a", "teny", audio="x"), entry("b", "Teny!", audio="x")]
    assert notes(training) == {}
    assert notes([*training, entry("c", "hafa", audio="x"), entry("d", "hafa")]) == {SAME_AUDIO: 3}


def test_ten_thousand_texts_against_a_thousand() -> None:
    """Each of the hundred copies with one letter changed is found, and not one more; a guard against minutes."""
    rng = Random(7)
    words = ["".join(rng.choices("aeiomntrslkvy", k=rng.randint(2, 9))) for _ in range(2000)]
    texts = [" ".join(rng.choices(words, k=rng.randint(10, 30))) for _ in range(10_900)]
    judge = [entry(f"h{i}", text) for i, text in enumerate(texts[:1000])]
    copies = {f"c{i}": f"{texts[i][:20]}z{texts[i][21:]}" for i in range(0, 1000, 10)}
    training = [entry(f"t{i}", text) for i, text in enumerate(texts[1000:])]
    training += [entry(clip, text) for clip, text in copies.items()]
    began = time.process_time()
    found = leaks(training, judge)
    assert time.process_time() - began < 60
    assert found == dict.fromkeys(copies, TEXT)
