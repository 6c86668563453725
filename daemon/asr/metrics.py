"""How far a text is from the one a person wrote: normalisation, word and character error rate."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_SAME_SIGN = str.maketrans({"\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u2010": "-", "\u2011": "-"})
_JOINERS = "'-"
"""They belong to a word where letters stand on both sides, as in ``amin'ny`` and ``rano-masina``."""


def normalise(text: str) -> str:
    """Fold what is no mistake of hearing: case, punctuation, spacing, and ways to encode the same letter (NFC)."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).translate(_SAME_SIGN)
    kept = "".join(char if _in_word(char) or char in _JOINERS else " " for char in folded.replace("--", " "))
    return " ".join(filter(None, (word.strip(_JOINERS) for word in kept.split())))


def _in_word(char: str) -> bool:
    """Letters, digits, and the marks that are written upon letters."""
    return char.isalnum() or unicodedata.category(char).startswith("M")


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Word edits over reference words, pooled over all pairs; both sides are normalised first.

    A pair whose reference is empty adds its hypothesis' words as insertions. With no reference word at all the rate is
    0.0 if nothing was heard either, else 1.0. Raises `ValueError` if the lists differ in length.
    """
    import jiwer

    return _pooled(jiwer.process_words, references, hypotheses, normalise)


def raw_word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """As `word_error_rate`, over the words as they are written: case and punctuation count, only spacing does not."""
    import jiwer

    return _pooled(jiwer.process_words, references, hypotheses, _spaced)


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """As `word_error_rate`, over characters; a space between words counts as one."""
    import jiwer

    return _pooled(jiwer.process_characters, references, hypotheses, normalise)


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Word edits and reference words of one pair, normalised: what `word_error_rate` pools."""
    import jiwer

    return _edits(jiwer.process_words([normalise(reference)], [normalise(hypothesis)]))


@dataclass(frozen=True, slots=True)
class Edits:
    """What a person changed in a draft, over the text as it is written: people type each capital and comma."""

    words: int
    """Of the person's text."""
    word_edits: int
    characters: int
    """Of the person's text, a space between words included."""
    character_edits: int


def edits(text: str, draft: str) -> Edits:
    """From a draft to what a person made of it. Only spacing, and the way to encode a letter, count for nothing.

    The least number of insertions, deletions and substitutions, without the shifts of HTER (Snover et al. 2006). Raises
    `ValueError` if the text has no word: then nobody has corrected anything.
    """
    import jiwer

    pair = [_spaced(unicodedata.normalize("NFC", each)) for each in (text, draft)]
    if not pair[0]:
        raise ValueError("A correction without a word corrects nothing.")
    word_edits, words = _edits(jiwer.process_words(*pair))
    character_edits, characters = _edits(jiwer.process_characters(*pair))
    return Edits(words, word_edits, characters, character_edits)


def _pooled(
    align: Callable[..., Any], references: Sequence[str], hypotheses: Sequence[str], fold: Callable[[str], str]
) -> float:
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references cannot be compared with {len(hypotheses)} hypotheses.")
    if not references:
        return 0.0
    edits, length = _edits(align([fold(text) for text in references], [fold(text) for text in hypotheses]))
    return edits / length if length else float(edits > 0)


def _edits(found: Any) -> tuple[int, int]:
    return (
        found.substitutions + found.deletions + found.insertions,
        found.hits + found.substitutions + found.deletions,
    )


def _spaced(text: str) -> str:
    return " ".join(text.split())
