from __future__ import annotations

import pytest

from daemon.asr.metrics import character_error_rate, normalise, raw_word_error_rate, word_error_rate, word_errors


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Misaotra,\ttompoko!\n", "misaotra tompoko"),
        ("Amin\u2019ny «rano-masina»", "amin'ny rano-masina"),
        ("'tsara' -- tokoa-", "tsara tokoa"),
        ("l\u0302 o\u0302", "l\u0302 ô"),
        ("ALÔHA", "alôha"),
        ("3,5 (telo)", "3 5 telo"),
        ("…", ""),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected
    assert normalise(expected) == expected


@pytest.mark.parametrize(
    ("references", "hypotheses", "rate"),
    [
        (["a b c d"], ["A, b c d."], 0.0),
        (["a b c d"], ["a x c"], 2 / 4),
        (["a"], ["a b c"], 2.0),
        (["a b c d e f g h", "i"], ["a b c d e f g h", "x"], 1 / 9),
        (["a b", ""], ["a b", "x"], 1 / 2),
        (["a b"], [""], 1.0),
        ([""], [""], 0.0),
        (["!"], ["word"], 1.0),
        ([], [], 0.0),
    ],
)
def test_word_error_rate_is_pooled_over_words(references: list[str], hypotheses: list[str], rate: float) -> None:
    assert word_error_rate(references, hypotheses) == pytest.approx(rate)


def test_character_error_rate_counts_characters() -> None:
    assert character_error_rate(["rano be"], ["rano  bé"]) == pytest.approx(1 / 7)


def test_the_raw_rate_counts_what_normalising_forgives() -> None:
    pair = ["Misaotra,  tompoko!"], ["misaotra tompoko"]
    assert word_error_rate(*pair) == 0.0
    assert raw_word_error_rate(*pair) == 1.0
    assert raw_word_error_rate(["a\tb\n c"], [" a b c"]) == 0.0
    assert raw_word_error_rate(["a b", ""], ["a B", "x"]) == 1.0


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counted"),
    [("a b c", "A x", (2, 3)), ("", "a b", (2, 0)), ("a b", "", (2, 2)), ("...", "", (0, 0))],
)
def test_errors_of_one_clip_are_what_the_rate_pools(reference: str, hypothesis: str, counted: tuple[int, int]) -> None:
    assert word_errors(reference, hypothesis) == counted


@pytest.mark.parametrize("rate", [word_error_rate, raw_word_error_rate, character_error_rate])
def test_lists_of_different_length_are_refused(rate: object) -> None:
    assert callable(rate)
    with pytest.raises(ValueError, match="2 references cannot be compared with 1"):
        rate(["a", "b"], ["a"])
