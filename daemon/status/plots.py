"""The page's plots: a picture, the figures behind it, and the sentence under it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from markupsafe import Markup

from daemon.learning.ports import Version
from daemon.learning.rows import Edited, comparison, edited
from daemon.status import svg
from daemon.status.truth import Rates
from daemon.status.words import lasting, percent

DAYS = 28
MOST_VERSIONS = 12
_UNITS = (("h", 3600), ("min", 60), ("s", 1))

Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture, and the same as a table."""

    name: str
    title: str
    picture: Markup
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def error_rates(versions: Sequence[Version]) -> Plot:
    """Word error rate of every judged version on the held-out recordings."""
    points: list[svg.Dot] = []
    rows: list[Sequence[str]] = []
    for version in versions:
        if (found := comparison(version.detail.get("comparison"))) is None:
            continue
        low, high = sorted((found.live_wer - found.gain_high, found.live_wer - found.gain_low))
        points.append(
            svg.Dot(f"v{version.id}", found.candidate_wer, max(0.0, low), high, strong=version.stage == "live")
        )
        rows.append(
            (
                f"v{version.id}",
                version.stage,
                percent(found.candidate_wer),
                f"{percent(max(0.0, low))} to {percent(high)}",
                f"v{found.against}: {percent(found.live_wer)}",
            )
        )
    note = (
        "Each version on the recordings that none was trained on. The line is where its rate lies, at the gate's "
        "confidence, given the rate of the version before."
    )
    return Plot(
        "wer",
        "Word error rate of each version",
        svg.dots("Word error rate of each version, with its interval", points[-MOST_VERSIONS:]),
        note,
        ("version", "stage", "error rate", "between", "before"),
        rows[::-1],
    )


@dataclass(frozen=True, slots=True)
class _Measure:
    """One way to say how much people change, or leave."""

    name: str
    title: str
    column: str
    of: Callable[[Edited], float | None]


MEASURES = (
    _Measure("edits", "Words that people change", "words", lambda found: found.of_words),
    _Measure("characters", "Characters that people change", "characters", lambda found: found.of_characters),
    _Measure("unchanged", "Drafts that people leave as they are", "left", lambda found: found.left_alone),
)


def edit_rates(rates: Rates) -> list[Plot]:
    """What people changed in the drafts of each version, by the week of the correction: a plot for each measure."""
    weeks = sorted({str(each["week"]) for each in rates})
    found = {(int(each["version"]), str(each["week"])): edited([each], int(each["version"])) for each in rates}
    versions = sorted({version for version, _ in found})
    newest = sorted(found, key=lambda key: (key[1], key[0]), reverse=True)
    plots = []
    for measure in MEASURES:
        share = {key: measure.of(each) for key, each in found.items()}
        series = {f"v{version}": [share.get((version, week)) for week in weeks] for version in versions}
        rows = [(f"v{key[0]}", key[1], f"{found[key].clips:,}", _percent_of(share[key])) for key in newest]
        plots.append(
            Plot(
                measure.name,
                measure.title,
                svg.lines(f"{measure.title}, by version and week", [week[5:] for week in weeks], series),
                "By the version that drafted, and the week of the correction.",
                ("version", "week", "clips", measure.column),
                rows,
            )
        )
    return plots


def corrections(days: Sequence[Found], bar: int, new: int, today: date) -> Plot:
    """Corrected clips by day, against what begins a training."""
    counts = {str(each["day"]): int(each["clips"]) for each in days}
    every = [today - timedelta(days=back) for back in range(DAYS - 1, -1, -1)]
    days_shown = [(f"{day:%m-%d}", float(counts.get(day.isoformat(), 0))) for day in every]
    return Plot(
        "corrections",
        "Corrections by day",
        svg.bars(
            f"Corrected clips by day; {bar:,} new ones begin a training", days_shown, float(bar), "begin a training"
        ),
        f"{new:,} new corrections since the last training.",
        ("day", "clips"),
        [(day, f"{count:,}") for day, count in sorted(counts.items(), reverse=True)],
    )


def latency(days: Sequence[Found]) -> Plot:
    """How long a clip waits for its first draft."""
    longest = max((float(each["most_s"]) for each in days), default=0.0)
    unit, size = next((unit, size) for unit, size in _UNITS if longest >= 2 * size or size == 1)
    series = {
        "half of the clips": [float(each["half_s"]) / size for each in days],
        "19 of 20": [float(each["most_s"]) / size for each in days],
    }
    return Plot(
        "latency",
        "From a clip's arrival to its draft",
        svg.lines("How long clips waited for their first draft, by day", [_month(each) for each in days], series, unit),
        "Half of the clips, and 19 of 20, had their first draft within so long.",
        ("day", "clips", "half", "19 of 20"),
        [
            (str(each["day"]), f"{each['clips']:,}", lasting(each["half_s"]), lasting(each["most_s"]))
            for each in reversed(days)
        ],
    )


def _month(row: Found) -> str:
    """Month and day."""
    return str(row["day"])[5:]


def _percent_of(rate: float | None) -> str:
    """A share that may not be known."""
    return "" if rate is None else percent(rate)
