"""What a real daemon's page and metrics show of a version that it has trained, beside its evidence and the database."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

import httpx
from pages import Reader
from witness import Database, scalar

Evidence = Mapping[str, Any]


def figures(http: httpx.Client) -> dict[str, float]:
    """Name with labels -> value, of `/metrics`."""
    lines = [line for line in http.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def under_way(http: httpx.Client) -> bool:
    """Whether the front page shows a training's step, its loss, and the time that is left."""
    text = Reader(http.get("/").text).text
    return bool(re.search(r"step \d+ of \d+\s+loss \d\.\d{3}\s", text) and re.search(r"\d (s|min) left", text))


def is_what_was_judged(http: httpx.Client, number: int, evidence: Evidence, why: str) -> None:
    """The verdict in words, the table by recording, and the best and the worst clips with what differs."""
    closed, shown = (http.get(f"/versions/{number}{query}").text for query in ("", "?transcripts=1"))
    assert why in Reader(closed).text
    clips = {clip["clip_id"]: clip for clip in evidence["clips"]}
    assert not any(clip["recording"] in closed or clip_id in closed for clip_id, clip in clips.items())

    rows = {row[0]: row[1:5] for row in _table(shown, "Table of recordings")}
    names = {clip["recording"] for clip in clips.values()}
    assert rows == {name: _sums([clip for clip in clips.values() if clip["recording"] == name]) for name in names}
    assert sorted(row[1:5] for row in _table(closed, "Table of recordings")) == sorted(rows.values())

    listed = re.findall(r'wrong, v.*?<code>(.*?)</code></p>\s*<p class="diff">(.*?)</p>', shown, re.DOTALL)
    assert len(listed) == 2 * min(10, len(clips))
    for clip_id, diff in listed:
        clip = clips[clip_id]
        assert _words(re.sub(r"<ins>.*?</ins>", "", diff)) == clip["reference"].split()
        assert len(_words(re.sub(r"<del>.*?</del>", "", diff))) == len(clip["candidate"]["text"].split())
    shares = [clips[clip_id]["candidate"]["errors"] / max(1, clips[clip_id]["words"]) for clip_id, _ in listed]
    worst, best = shares[: len(listed) // 2], shares[len(listed) // 2 :]
    every = sorted(clip["candidate"]["errors"] / max(1, clip["words"]) for clip in clips.values())
    assert (worst, best) == (every[::-1][: len(worst)], every[: len(best)])


def unlike_the_database(http: httpx.Client, db: Database) -> dict[str, Any]:
    """Figures of the learning loop that are not what SQL says."""
    live = "(select detail from model_versions where stage = 'live')"
    truth = {
        "ambara_live_version": "select id from model_versions where stage = 'live'",
        "ambara_versions": "select count(*) from model_versions",
        "ambara_live_version_drafts": "select count(*) from drafts d join model_versions v on v.id = d.version_id "
        "where v.stage = 'live'",
        "ambara_live_word_error_ratio": f"select ({live} -> 'comparison' ->> 'candidate_wer')::float",
        "ambara_new_corrections": "select (ambara_training() ->> 'new_clips')::int",
        "ambara_training_active": "select count(*) from training_runs where status = 'active'",
        "ambara_training_failed": "select count(*) from training_runs where status = 'failed'",
    }
    told = figures(http)
    counted = {name: float(scalar(db, query)) for name, query in truth.items()}
    return {name: (told.get(name), count) for name, count in counted.items() if told.get(name) != count}


def _table(page: str, label: str) -> list[list[str]]:
    body = page.partition(f'aria-label="{label}"')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL) for row in body.split("</tr>")]
    return [[html.unescape(cell) for cell in row] for row in cells if row]


def _sums(clips: list[Mapping[str, Any]]) -> list[str]:
    words = sum(clip["words"] for clip in clips)
    rates = [sum(clip[side]["errors"] for clip in clips) / words for side in ("live", "candidate")]
    return [str(len(clips)), str(words), *(f"{rate * 100:.1f} %" for rate in rates)]


def _words(diff: str) -> list[str]:
    return html.unescape(re.sub(r"<.*?>", "", diff)).split()
