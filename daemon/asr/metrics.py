"""How far a text is from the one a person wrote: normalisation, word and character error rate."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
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

    return _pooled(jiwer.process_words, references, hypotheses)


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """As `word_error_rate`, over characters; a space between words counts as one."""
    import jiwer

    return _pooled(jiwer.process_characters, references, hypotheses)


def _pooled(align: Callable[..., Any], references: Sequence[str], hypotheses: Sequence[str]) -> float:
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references cannot be compared with {len(hypotheses)} hypotheses.")
    if not references:
        return 0.0
    found = align([normalise(text) for text in references], [normalise(text) for text in hypotheses])
    edits: int = found.substitutions + found.deletions + found.insertions
    length: int = found.hits + found.substitutions + found.deletions
    return edits / length if length else float(edits > 0)
