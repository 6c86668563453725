"""What is said, and by whom: two small worlds of Malagasy-looking sentences.

Domain ``A`` is the market: ten speakers, fifty words. Domain ``B`` is the village clinic: two other speakers on the
telephone, with words that A never says. A model trained on A stumbles over B until people have corrected it, which is
the whole story of the project in a few seconds of CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

Domain = Literal["A", "B"]

Lexicon = Mapping[str, tuple[str, ...]]
Range = tuple[float, float]


def _lexicon(**words: str) -> Lexicon:
    return {kind: tuple(listed.split()) for kind, listed in words.items()}


MARKET = _lexicon(
    verb="mividy mivarotra mihinana misotro mitady mitondra manome mahita mila mamboly",
    noun="vary trondro hena rano ronono akoho omby voankazo katsaka mangahazo",
    number="iray roa telo efatra dimy enina fito valo sivy folo",
    quality="tsara ratsy lehibe kely mena fotsy mainty maitso",
    who="aho ianao izy isika izahay ianareo rasoa rakoto",
    when="androany omaly rahampitso izao",
)
CLINIC = _lexicon(
    verb="mikohaka mitsabo mila mihinana",
    noun="fanafody tazo loha kibo vaksiny",
    number="roa telo dimy",
    quality="marary kely tsara",
    who="dokotera zaza aho izy",
    when="androany omaly izao",
)

PATTERNS = (
    "verb noun number who when",
    "verb noun quality who",
    "verb noun number who",
    "number noun quality when",
    "verb noun who when",
    "noun quality verb who when",
    "noun number quality",
    "verb who when",
    "noun quality",
    "verb noun quality who when",
)


@dataclass(frozen=True, slots=True)
class Channel:
    """What lies between mouth and file. Every range is drawn from anew for each clip."""

    low_cut_hz: Range = (0, 250)
    high_cut_hz: Range = (3500, 8000)
    tilt_db: Range = (-6, 6)
    """Treble against bass over the whole band."""
    noise_db: Range = (12, 35)
    """Signal over white noise."""
    margin_s: Range = (0.02, 0.2)
    """Pause before and after the words."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """A voice of espeak-ng with its habits."""

    name: str
    voice: str
    words_per_minute: int
    pitch: int
    channel: Channel = Channel()
    tempo: Range = (0.85, 1.18)
    pitch_spread: int = 12


_TELEPHONE = Channel(low_cut_hz=(150, 250), high_cut_hz=(3600, 4500), tilt_db=(-2, 2), noise_db=(14, 20))

MARKET_SPEAKERS = (
    Speaker("a1", "id+m1", 165, 45),
    Speaker("a2", "id+m2", 175, 40),
    Speaker("a3", "id+m3", 160, 35),
    Speaker("a4", "id+m4", 170, 50),
    Speaker("a5", "id+f1", 170, 55),
    Speaker("a6", "id+f2", 165, 60),
    Speaker("a7", "id+f3", 180, 50),
    Speaker("a8", "ms+m7", 170, 45),
    Speaker("a9", "ms+f4", 170, 55),
    Speaker("a10", "id+klatt2", 165, 45),
)
CLINIC_SPEAKERS = (
    Speaker("b1", "id+f5", 160, 75, _TELEPHONE, (0.92, 1.1), 6),
    Speaker("b2", "id+m5", 180, 25, _TELEPHONE, (0.92, 1.1), 6),
)

WORLDS: Mapping[Domain, tuple[Lexicon, tuple[Speaker, ...]]] = {
    "A": (MARKET, MARKET_SPEAKERS),
    "B": (CLINIC, CLINIC_SPEAKERS),
}

_AS_HEARD = str.maketrans({"o": "u", "y": "i", "j": "dz", "ô": "o"})


def compose(lexicon: Lexicon, rng: Random) -> str:
    """One sentence of two to five words."""
    return " ".join(rng.choice(lexicon[kind]) for kind in rng.choice(PATTERNS).split())


def ramble(lexicon: Lexicon, rng: Random) -> str:
    """One to four words in no order, often with a pause among them: what a window cut from long speech holds."""
    words = [rng.choice(lexicon[rng.choice(tuple(lexicon))]) for _ in range(rng.randint(1, 4))]
    pause = rng.randrange(2 * len(words))
    return " ".join(f"{word}," if at == pause and word != words[-1] else word for at, word in enumerate(words))


def respell(text: str) -> str:
    """Malagasy spelling as an Indonesian or Malay voice must see it to read it the Malagasy way."""
    return text.replace("ao", "au").translate(_AS_HEARD)
