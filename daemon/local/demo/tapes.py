"""What is spoken in the demo, on which tape, and in which round people correct it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from daemon.local.phrasebook import Domain
from daemon.local.speech import Utterance, speak_corpus

SEED = 20_261
MOST_ROUNDS = 3
_CLINIC = ((5, 12), (5, 12), (8, 12))
"""Round by round, how many tapes of the village clinic people correct, and of how many clips each: the words that the
base model does not know."""
_MARKET = ((3, 20), (2, 20), (2, 20))
"""The same for the market, whose words it knows and should not forget."""


@dataclass(frozen=True, slots=True)
class Tape:
    """A recording, cut into clips."""

    name: str
    """`clips.source_file`."""
    clips: tuple[Utterance, ...]
    round: int | None
    """The round in which people correct it; None for the tapes that nobody corrects."""


def speak_tapes(rounds: int, waiting: int) -> list[Tape]:
    """Speak everything for so many rounds, with `waiting` clips that stay pending to the end (half of each domain)."""
    half = waiting // 2
    return [
        *_tapes("clinic", "B", _CLINIC[:rounds], half),
        *_tapes("market", "A", _MARKET[:rounds], waiting - half),
    ]


def _tapes(place: str, domain: Domain, plan: Sequence[tuple[int, int]], waiting: int) -> list[Tape]:
    count = sum(tapes * clips for tapes, clips in plan) + waiting
    # No sentence twice: what is waiting, and what is held out, nobody has said before.
    spoken = islice({each.text: each for each in speak_corpus(domain, 2 * count, SEED)}.values(), count)
    tapes: list[Tape] = []
    for number, (count, clips) in enumerate(plan, 1):
        for _ in range(count):
            tapes.append(Tape(f"{place}-tape-{len(tapes) + 1}.mp3", tuple(islice(spoken, clips)), number))
    return [*tapes, Tape(f"{place}-waiting.mp3", tuple(spoken), None)]
