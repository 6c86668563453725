from __future__ import annotations

import pytest

from daemon.asr.metrics import character_error_rate, normalise, word_error_rate


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


@pytest.mark.parametrize("rate", [word_error_rate, character_error_rate])
def test_lists_of_different_length_are_refused(rate: object) -> None:
    assert callable(rate)
    with pytest.raises(ValueError, match="2 references cannot be compared with 1"):
        rate(["a", "b"], ["a"])
