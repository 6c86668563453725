"""How good a new model is beside its base, on the side of a data set that it was not trained on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from daemon.asr import families
from daemon.asr.errors import ModelError
from daemon.asr.judging import hearing
from daemon.asr.judging.evidence import Rates
from daemon.asr.metrics import character_error_rate, raw_word_error_rate, word_error_rate
from daemon.asr.whisper.dataset import LeftOutError, Row, read_audio, read_rows
from daemon.asr.whisper.guards import clean

LONGEST_S = 30.0
FILE = "rates.json"

Options = Mapping[str, Any]
"""What `families.load` takes."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Both models over the same clips."""

    clips: int
    left_out: Mapping[str, int]
    """Reason -> clips of the test side that say nothing."""
    before: Rates
    after: Rates


def measure(
    data: Path, family: str, base: Options, model: Options, report: Callable[[int, int], None], stop: Callable[[], bool]
) -> Measured | None:
    """Let the base and then the new model hear the test side. None if it holds no clip, or `stop` said yes.

    `report` takes clips heard and to be heard. Raises `ModelError`, and what the device raises.
    """
    rows, left_out = _usable(read_rows(data, "test"))
    if not rows:
        return None
    sounds = [partial(read_audio, row.path, LONGEST_S) for row in rows if row.path]
    texts = [clean(row.text) for row in rows]
    progress = hearing.Progress(report, stop, total=2 * len(rows))
    found: list[Rates] = []
    for done, options in ((0, base), (len(rows), model)):
        load = partial(families.load, family, options)
        try:
            drafts, _ = hearing.hear(load, sounds, progress, done, blame=ModelError)
        except hearing.StoppedError:
            return None
        finally:
            hearing.free()
        found.append(_rates(texts, [draft.text for draft in drafts]))
    return Measured(len(rows), left_out, *found)


def keep(measured: Measured, out: Path, of: Sequence[str]) -> None:
    """Write down in `out` what was measured; `of` says of which base and data."""
    (out / FILE).write_text(json.dumps({"of": list(of), **asdict(measured)}, indent=1), encoding="utf-8")


def kept(out: Path, of: Sequence[str]) -> Measured | None:
    """What was measured earlier, if it was of the same."""
    try:
        facts = json.loads((out / FILE).read_text(encoding="utf-8"))
        if facts.pop("of") != list(of):
            return None
        return Measured(**facts | {side: Rates(**facts[side]) for side in ("before", "after")})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _usable(rows: Sequence[Row]) -> tuple[list[Row], dict[str, int]]:
    reasons = [_reason(row) for row in rows]
    usable = [row for row, reason in zip(rows, reasons, strict=True) if reason is None]
    return usable, dict(Counter(reason for reason in reasons if reason))


def _reason(row: Row) -> str | None:
    """Why a clip says nothing; None if it does."""
    if not clean(row.text):
        return "empty-text"
    if row.path is None:
        return "audio-path"
    try:
        read_audio(row.path, LONGEST_S)
    except LeftOutError as error:
        return str(error)
    return None


def _rates(references: Sequence[str], texts: Sequence[str]) -> Rates:
    return Rates(
        wer=word_error_rate(references, texts),
        wer_raw=raw_word_error_rate(references, texts),
        cer=character_error_rate(references, texts),
    )
