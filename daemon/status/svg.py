"""Plots as inline SVG. Colours come from the page's style by class; what a label says is text, whatever it holds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 400.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 26.0, 30.0
MOST_LABELS = 7
SERIES = 6
"""So many lines can be told apart; the newest are drawn."""


@dataclass(frozen=True, slots=True)
class Dot:
    """A figure and the interval that it lies in."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    strong: bool = False


def element(name: str, *children: str, **attributes: object) -> Markup:
    """An element. Children that are no `Markup` are escaped, and so is every attribute."""
    given = Markup("").join(
        Markup(' {}="{}"').format(Markup(key.rstrip("_").replace("_", "-")), _short(value))  # noqa: S704 - our own names
        for key, value in attributes.items()
    )
    tag = Markup(name)  # noqa: S704 - as above
    return Markup("<{0}{1}>{2}</{0}>").format(tag, given, Markup("").join(children))


def dots(title: str, points: Sequence[Dot], unit: str = "%") -> Markup:
    """One dot for each point, with its interval as an upright line."""
    top = max((max(p.value, p.high or 0.0) for p in points), default=0.0)
    drawn: list[Markup] = []
    for index, point in enumerate(points):
        x, y = _across(index, len(points)), _up(point.value, _ceiling(top))
        kind = "strong" if point.strong else "plain"
        if point.low is not None and point.high is not None:
            low, high = (_up(max(0.0, each), _ceiling(top)) for each in (point.low, point.high))
            drawn.append(element("path", d=_interval(x, low, high), class_=f"interval {kind}"))
        drawn.append(element("circle", cx=x, cy=y, r=5 if point.strong else 4, class_=f"dot {kind}"))
    return _plot(title, [p.label for p in points], top, unit, drawn)


def lines(title: str, labels: Sequence[str], series: Mapping[str, Sequence[float | None]], unit: str = "%") -> Markup:
    """A line for each series, named above the picture. A gap in the figures is a gap in the line."""
    chosen = list(series.items())[-SERIES:]
    top = max((v for _, values in chosen for v in values if v is not None), default=0.0)
    drawn: list[Markup] = []
    for number, (_, values) in enumerate(chosen):
        points = [
            (_across(index, len(labels)), _up(value, _ceiling(top))) if value is not None else None
            for index, value in enumerate(values)
        ]
        drawn.append(element("path", d=_path(points), class_=f"line s{number}"))
        drawn += [element("circle", cx=x, cy=y, r=3, class_=f"mark s{number}") for x, y in filter(None, points)]
    drawn += _key({name: f"line s{number}" for number, (name, _) in enumerate(chosen)})
    return _plot(title, labels, top, unit, drawn)


def bars(title: str, counts: Sequence[tuple[str, float]], bar: float | None = None, said: str = "") -> Markup:
    """A bar for each count; `bar` is a dashed line across all of them, with its figure and what is `said` above."""
    top = max([*(count for _, count in counts), bar or 0.0], default=0.0)
    room = (WIDTH - LEFT - RIGHT) / max(1, len(counts))
    drawn = []
    for index, (_, count) in enumerate(counts):
        y = _up(count, _ceiling(top))
        x = _across(index, len(counts)) - room * 0.35
        drawn.append(element("rect", x=x, y=y, width=room * 0.7, height=HEIGHT - BOTTOM - y, class_="count"))
    if bar is not None:
        y = _up(bar, _ceiling(top))
        drawn.append(element("path", d=f"M{LEFT} {_short(y)}H{WIDTH - RIGHT}", class_="bar"))
        drawn += _key({f"{bar:,.0f} {said}".strip(): "bar"})
    return _plot(title, [label for label, _ in counts], top, "", drawn)


def _key(classes: Mapping[str, str]) -> Iterator[Markup]:
    """A short line of each class with its name, in the room above the picture: no figure comes there."""
    room = (WIDTH - LEFT - RIGHT) / max(2, len(classes))
    for index, (name, class_) in enumerate(classes.items()):
        x, y = LEFT + index * room, TOP / 2 - 3
        yield element("path", d=f"M{_short(x)} {_short(y)}h16", class_=f"{class_} key")
        yield element("text", name, x=x + 20, y=y + 4, class_="name")


def ticks(top: float) -> list[float]:
    """Round figures from 0 to at least `top`, about four of them."""
    if not (top > 1e-12 and math.isfinite(top)):
        return [0.0, 1.0]
    rough = top / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= rough * 0.999)
    return [index * step for index in range(math.ceil(round(top / step, 6)) + 1)]


def _plot(title: str, labels: Sequence[str], top: float, unit: str, drawn: Sequence[Markup]) -> Markup:
    grid = []
    for tick in ticks(top):
        y = _up(tick, _ceiling(top))
        grid.append(element("path", d=f"M{LEFT} {_short(y)}H{WIDTH - RIGHT}", class_="grid"))
        shown = f"{tick * 100:.4g}" if unit == "%" else f"{tick:.4g}"
        grid.append(element("text", f"{shown} {unit}".strip(), x=LEFT - 6, y=y + 4, text_anchor="end"))
    every = math.ceil(len(labels) / MOST_LABELS) or 1
    for index, label in enumerate(labels):
        if index % every == 0:
            grid.append(element("text", label, x=_across(index, len(labels)), y=HEIGHT - 8, text_anchor="middle"))
    content = [element("title", title), *grid, *drawn]
    return element("svg", *content, viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}", role="img", aria_label=title)


def _ceiling(top: float) -> float:
    return ticks(top)[-1]


def _across(index: int, of: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (index + 0.5) / max(1, of)


def _up(value: float, ceiling: float) -> float:
    value = value if math.isfinite(value) else 0.0
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(1.0, max(0.0, value / ceiling))


def _interval(x: float, low: float, high: float) -> str:
    left, right, middle, bottom, top = (_short(each) for each in (x - 5, x + 5, x, low, high))
    return f"M{middle} {bottom}V{top}M{left} {bottom}H{right}M{left} {top}H{right}"


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    drawn, pen = "", "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        drawn += f"{pen}{_short(point[0])} {_short(point[1])}"
        pen = "L"
    return drawn


def _short(value: object) -> object:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value
