"""What is spoken in the demo, on which tape, and in which round people correct it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from daemon.local.phrasebook import Domain
from daemon.local.speech import Utterance, speak_corpus

SEED = 20_261
MOST_ROUNDS = 3
_TAPES = (6, 6, 8)
"""How many tapes people correct, round by round."""
_CLINIC, _MARKET = 10, 6
"""Clips of a tape: sentences of the village clinic, whose words the base model does not know, and of the market, whose
words it knows and should not forget."""


@dataclass(frozen=True, slots=True)
class Tape:
    """A recording, cut into clips."""

    name: str
    """`clips.source_file`."""
    clips: tuple[Utterance, ...]
    round: int | None
    """The round in which people correct it; None for the tapes that nobody corrects."""


def speak_tapes(rounds: int, waiting: int) -> list[Tape]:
    """Speak everything for so many rounds, with `waiting` clips that stay pending to the end (half of each world)."""
    count = sum(_TAPES[:rounds])
    clinic = _distinct("B", count * _CLINIC + waiting // 2)
    market = _distinct("A", count * _MARKET + waiting - waiting // 2)
    tapes: list[Tape] = []
    for number, of_round in enumerate(_TAPES[:rounds], 1):
        for _ in range(of_round):
            clips = (*islice(clinic, _CLINIC), *islice(market, _MARKET))
            tapes.append(Tape(f"village-clinic-{len(tapes) + 1}.mp3", clips, number))
    return [*tapes, Tape("village-clinic-today.mp3", (*clinic, *market), None)]


def _distinct(domain: Domain, count: int) -> Iterator[Utterance]:
    """No sentence twice: what waits, and what is held out, nobody has said before."""
    return islice({each.text: each for each in speak_corpus(domain, 2 * count, SEED)}.values(), count)
