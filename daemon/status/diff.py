"""Where a draft's words differ from the words that a person wrote."""

from __future__ import annotations

from difflib import SequenceMatcher

from daemon.asr.metrics import normalise

Piece = tuple[str, str]
"""``same``, ``missing`` (only the person wrote it) or ``extra`` (only the model heard it), and the words."""


def word_diff(reference: str, draft: str) -> list[Piece]:
    """The pieces in order. Case and punctuation alone are no difference: they do not count as errors."""
    wrote, heard = reference.split(), draft.split()
    pieces: list[Piece] = []
    matcher = SequenceMatcher(None, [_key(w) for w in wrote], [_key(w) for w in heard], autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            pieces.append(("same", " ".join(wrote[a:b])))
            continue
        if a < b:
            pieces.append(("missing", " ".join(wrote[a:b])))
        if c < d:
            pieces.append(("extra", " ".join(heard[c:d])))
    return pieces


def _key(word: str) -> str:
    return normalise(word) or word
