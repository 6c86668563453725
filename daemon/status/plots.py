"""The page's plots: a picture, the figures behind it, and the sentence under it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from markupsafe import Markup

from daemon.learning.ports import Version
from daemon.learning.rows import comparison
from daemon.status import svg
from daemon.status.truth import Rates
from daemon.status.words import lasting, percent

DAYS = 28
MOST_VERSIONS = 12

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


def edit_rates(rates: Rates) -> Plot:
    """What people changed in the drafts of each version, by the week of the correction."""
    weeks = sorted({str(each["week"]) for each in rates})
    versions = sorted({int(each["version"]) for each in rates})
    shares = {(int(each["version"]), str(each["week"])): share(each, "word") for each in rates}
    series = {f"v{version}": [shares.get((version, week)) for week in weeks] for version in versions}
    rows = [
        (
            f"v{each['version']}",
            str(each["week"]),
            f"{each['clips']:,}",
            shown(share(each, "word")),
            shown(share(each, "character")),
            percent(each["unchanged"] / each["clips"]) if each["clips"] else "",
        )
        for each in sorted(rates, key=lambda each: (str(each["week"]), int(each["version"])), reverse=True)
    ]
    return Plot(
        "edits",
        "What people change in drafts",
        svg.lines("Words that people changed in each version's drafts, by week", [week[5:] for week in weeks], series),
        "The share of the words that people changed, by the version that drafted and the week of the correction.",
        ("version", "week", "clips", "words", "characters", "left as they were"),
        rows,
    )


def corrections(days: Sequence[Found], bar: int, new: int, today: date) -> Plot:
    """Corrected clips by day, against what begins a training."""
    counts = {str(each["day"]): int(each["clips"]) for each in days}
    every = [today - timedelta(days=back) for back in range(DAYS - 1, -1, -1)]
    shown_days = [(f"{day:%m-%d}", float(counts.get(day.isoformat(), 0))) for day in every]
    return Plot(
        "corrections",
        "Corrections by day",
        svg.bars(f"Corrected clips by day; {bar:,} new ones begin a training", shown_days, float(bar)),
        f"{new:,} new corrections since the last training; the dashed line is the bar, {bar:,}.",
        ("day", "clips"),
        [(day, f"{count:,}") for day, count in sorted(counts.items(), reverse=True)],
    )


def latency(days: Sequence[Found]) -> Plot:
    """How long a clip waits for its first draft."""
    labels = [str(each["day"])[5:] for each in days]
    series = {
        "19 of 20": [float(each["most_s"]) for each in days],
        "half": [float(each["half_s"]) for each in days],
    }
    return Plot(
        "latency",
        "From a clip's arrival to its draft",
        svg.lines("Seconds that clips waited for their first draft, by day", labels, series, unit="s"),
        "Half of the clips, and 19 of 20, had their first draft within so many seconds.",
        ("day", "clips", "half", "19 of 20"),
        [
            (str(each["day"]), f"{each['clips']:,}", lasting(each["half_s"]), lasting(each["most_s"]))
            for each in reversed(days)
        ],
    )


def share(rates: Found, level: str) -> float | None:
    """The share that was changed, of ``word`` or ``character``; None where there was nothing to change."""
    whole = rates[f"{level}s"]
    return rates[f"{level}_edits"] / whole if whole else None


def shown(rate: float | None) -> str:
    """A share that may not be known."""
    return "" if rate is None else percent(rate)


def pooled(rates: Rates, version: int, level: str) -> float | None:
    """The share that was changed in all of a version's drafts."""
    mine = [each for each in rates if int(each["version"]) == version]
    keys = (f"{level}s", f"{level}_edits")
    return share({key: sum(each[key] for each in mine) for key in keys}, level) if mine else None
