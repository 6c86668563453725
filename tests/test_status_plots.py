"""Plots, differences between words, and figures in words."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import date, timedelta

import pytest
import seen
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from daemon.learning.rows import Edited, edited
from daemon.status import plots, svg
from daemon.status.diff import word_diff
from daemon.status.view import backlog, page
from daemon.status.words import ago, lasting, minute, when
from handlers.policy import Policy
from handlers.snapshot import EditRates

FIGURES = st.lists(st.floats(min_value=0, max_value=1e6, allow_nan=False), min_size=0, max_size=40)


def drawn(picture: Markup) -> ET.Element:
    """It is XML, with nothing outside of the picture."""
    root = ET.fromstring(picture)
    for element in root.iter():
        place = {name: float(element.get(name) or 0) for name in ("x", "cx", "y", "cy", "width", "height")}
        assert -1 <= place["x"] + place["cx"] + place["width"] <= svg.WIDTH + 1
        assert -20 <= place["y"] + place["cy"] + place["height"] <= svg.HEIGHT + 1
        assert place["height"] >= 0
    return root


def classed(root: ET.Element, name: str) -> list[ET.Element]:
    return [each for each in root.iter() if name in (each.get("class") or "").split()]


def test_every_version_has_its_dot_and_its_interval() -> None:
    plot = plots.error_rates(seen.versions())
    root = drawn(plot.picture)
    first, second = classed(root, "dot")
    assert float(first.get("cy") or 0) < float(second.get("cy") or 0), "fewer errors are further down"
    assert "strong" in (second.get("class") or ""), "the live one"
    assert len(classed(root, "interval")) == 2
    assert plot.rows[0] == ("v3", "live", "22.0 %", "20.0 % to 24.0 %", "v2: 30.0 %")


def names(root: ET.Element) -> list[str | None]:
    return [each.text for each in classed(root, "name")]


def test_edit_rates_by_week_and_version() -> None:
    words, characters, left = plots.edit_rates(seen.rates())
    for plot in (words, characters, left):
        root = drawn(plot.picture)
        assert len(classed(root, "line")) - len(classed(root, "key")) == 3
        assert names(root) == ["v1", "v2", "v3"]
    assert words.rows[0] == ("v3", "2026-11-23", "12", "20.0 %")
    assert characters.rows[0] == ("v3", "2026-11-23", "12", "12.0 %")
    assert left.rows[0] == ("v3", "2026-11-23", "12", "25.0 %")
    second = edited([*seen.rates(), dict(seen.rates()[1], week="2026-11-16", words=300, word_edits=9)], 2)
    assert (second.clips, second.of_words) == (24, pytest.approx(40 / 400))
    assert edited(seen.rates(), 9) == Edited()


def test_a_version_whose_drafts_had_no_words_has_no_rate() -> None:
    empty = dict(seen.rates()[0], words=0, word_edits=0, clips=0, unchanged=0)
    words, characters, left = plots.edit_rates([empty])
    assert [plot.rows[0][3] for plot in (words, characters, left)] == ["", "24.0 %", ""]
    for plot in (words, characters, left):
        drawn(plot.picture)


def test_names_stand_above_whatever_is_drawn() -> None:
    """And beside one another: a name never lies on a line."""
    days = [{"day": f"2026-11-{day}", "clips": 9, "half_s": 2.0, "most_s": 9.0 + day % 3} for day in range(10, 28)]
    many = [dict(row, version=n) for n, row in enumerate(seen.rates() * 2, 100)]
    plot = plots.corrections([{"day": "2026-11-28", "clips": 50}], 50, 7, date(2026, 11, 28))
    for found in (plots.latency(days), *plots.edit_rates(many), plot):
        root = drawn(found.picture)
        marks = [
            float(each.get("cy") or each.get("y") or 0) for kind in ("mark", "count") for each in classed(root, kind)
        ]
        starts = [float(each.get("x") or 0) for each in classed(root, "name")]
        ends = [start + 7 * len(each or "") for start, each in zip(starts, names(root), strict=True)]
        assert max(float(each.get("y") or 0) for each in classed(root, "name")) < svg.TOP - 8 < svg.TOP <= min(marks)
        assert all(end < start - 20 for end, start in zip(ends, starts[1:], strict=False))
        assert ends[-1] < svg.WIDTH


def test_long_waits_are_told_in_hours() -> None:
    for most_s, unit in ((11.0, "s"), (600.0, "min"), (90_000.0, "h")):
        day = {"day": "2026-11-27", "clips": 9, "half_s": 2.5, "most_s": most_s}
        texts = [each.text or "" for each in drawn(plots.latency([day]).picture).iter() if each.get("text-anchor")]
        assert [text for text in texts if text.endswith(f" {unit}")], texts


def test_corrections_stand_on_their_day_against_the_bar() -> None:
    today = date(2026, 11, 28)
    plot = plots.corrections([{"day": "2026-11-28", "clips": 7}, {"day": "2026-10-01", "clips": 9}], 50, 7, today)
    root = drawn(plot.picture)
    columns = classed(root, "count")
    assert len(columns) == plots.DAYS
    assert [float(each.get("height") or 0) > 0 for each in columns] == [False] * (plots.DAYS - 1) + [True]
    assert len(classed(root, "bar")) - len(classed(root, "key")) == 1
    assert names(root) == ["50 begin a training"]


def test_nothing_yet_is_no_picture() -> None:
    assert not plots.error_rates(()).rows
    assert not any(plot.rows for plot in plots.edit_rates([]))
    assert not plots.latency([]).rows


def test_a_label_is_text() -> None:
    for picture in (
        svg.bars(seen.NASTY, [(seen.NASTY, 1.0)]),
        svg.lines("t", [seen.NASTY], {seen.NASTY: [0.5]}),
        svg.dots("t", [svg.Dot('"><g onload="x', 0.5)]),
    ):
        root = drawn(picture)
        assert not [e for e in root.iter() if e.tag in ("script", "g")]
        assert not [name for e in root.iter() for name in e.attrib if name.startswith("on")]
    assert 'a="&#34;&gt;"' in svg.element("g", a='">')


@given(FIGURES)
def test_whatever_the_figures_the_picture_holds_them(figures: list[float]) -> None:
    days = [((date(2026, 1, 1) + timedelta(days=n)).isoformat(), f) for n, f in enumerate(figures)]
    drawn(svg.bars("t", days, bar=3.0))
    drawn(svg.lines("t", [d for d, _ in days], {"v1": figures, "v2": [None if f > 5 else f for f in figures]}, "s"))
    drawn(svg.dots("t", [svg.Dot(d, f, 0.0, f * 2) for d, f in days]))


@given(st.floats(min_value=1e-9, max_value=1e12))
def test_ticks_are_few_and_reach_the_top(top: float) -> None:
    found = svg.ticks(top)
    assert 3 <= len(found) <= 6
    assert found[0] == 0
    assert found[-1] >= top * 0.999


def test_numbers_that_are_none_do_not_break_a_picture() -> None:
    drawn(svg.lines("t", ["a", "b"], {"v": [float("nan"), float("inf")]}))
    assert svg.ticks(0.0) == [0.0, 1.0]


def test_words_that_differ() -> None:
    assert word_diff("Manao ahoana, tompoko!", "manao ahoana ry tompoko") == [
        ("same", "Manao ahoana,"),
        ("extra", "ry"),
        ("same", "tompoko!"),
    ]
    assert word_diff("iray roa telo", "iray efatra") == [("same", "iray"), ("missing", "roa telo"), ("extra", "efatra")]
    assert word_diff("", "") == []
    assert word_diff("iray", "") == [("missing", "iray")]


@given(st.lists(st.sampled_from("abcd ,.'")), st.lists(st.sampled_from("abcd ,.'")))
def test_no_word_is_lost_in_a_difference(reference: list[str], draft: list[str]) -> None:
    wrote, heard = "".join(reference), "".join(draft)
    pieces = word_diff(wrote, heard)
    assert " ".join(text for kind, text in pieces if kind != "extra").split() == wrote.split()
    assert len(" ".join(text for kind, text in pieces if kind != "missing").split()) == len(heard.split())


def test_figures_and_times_in_words() -> None:
    assert [lasting(s) for s in (-3, 12, 600, 7200, 86_400 * 3)] == ["0 s", "12 s", "10 min", "2 h", "3 days"]
    assert ago(None, seen.NOW) == "never yet"
    assert ago("2026-11-28T11:59:00+00:00", seen.NOW) == "60 s ago"
    assert minute("2026-11-28T03:00:00+03:00") == "2026-11-28 00:00"
    assert (minute("yesterday"), when("")) == ("?", None)


def test_the_backlog_by_reason_counts_every_pending_clip() -> None:
    rows = backlog(seen.status())
    assert sum(clips for _, clips, _ in rows) == 40
    assert ("tried again", 2, "the audio is not there yet: it is asked for again for ever") in rows
    assert backlog({}) == []


def test_the_first_two_answers() -> None:
    told = page(seen.look(), seen.here(), Policy(), seen.NOW)
    alive, listening, *_ = told["cards"]
    assert (alive.level, alive.answer) == ("well", "yes")
    assert alive.details[0] == "since 2026-11-28 07:00 UTC, 5 h"
    assert listening.details == (
        ["since 2026-11-28 09:00 UTC", "last change of a clip heard 20 s ago", "last canary came back 50 s ago"]
    )
    hung = page(seen.look(), seen.here(hung="the model"), Policy(), seen.NOW)["cards"][0]
    assert (hung.level, hung.answer) == ("trouble", "the model hangs")
    blocked = page(seen.look(), seen.here(blocked="no model version is live yet"), Policy(), seen.NOW)["cards"][0]
    assert (blocked.level, blocked.answer) == ("trouble", "no model version is live yet")


@pytest.mark.parametrize(
    ("edits", "level", "answer"),
    [
        (seen.edits(200, 310), "well", "yes"),
        (seen.edits(400, 310), "trouble", "no: they grow"),
        (seen.edits(310, 310), "busy", "no clear difference"),
        (replace(seen.edits(), then=None), "busy", "too few corrections to tell"),
        (None, "busy", "no version was live before this one"),
    ],
)
def test_whether_corrections_get_smaller(edits: EditRates | None, level: str, answer: str) -> None:
    look = seen.look()
    assert look.truth is not None
    given = replace(look, truth=replace(look.truth, edits=edits))
    card = page(given, seen.here(), Policy(), seen.NOW)["cards"][-1]
    assert (card.level, card.answer) == (level, answer)
    if edits:
        said = "version 3, characters changed: 12.0 %; left as they were: 25.0 % of the drafts"
        assert list(card.details[1:]) == [said]
