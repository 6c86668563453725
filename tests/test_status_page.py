"""The page: what it says, and that nothing in it is obeyed."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import seen
from pages import SECRET, Reader, asked

from daemon.asr.bootstrap import Interval
from daemon.asr.judging.evidence import ClipEvidence, Evidence, GuardFigure, Heard, Invented
from daemon.redaction import Redactor
from daemon.status.truth import Look, redacted
from daemon.status.version_view import version_page
from handlers.policy import PromotionPolicy


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A host that judged version 3."""
    folder = tmp_path / "0003"
    folder.mkdir()
    (folder / "evidence.json").write_text(json.dumps(seen.evidence()))
    return tmp_path


async def test_five_seconds_of_reading() -> None:
    async with asked() as http:
        answer = await http.get("/")
    read = Reader(answer.text)
    assert answer.status_code == 200
    assert not read.open
    for said in (
        "Alive?",
        "last change of a clip heard",
        "last canary came back",
        "18 clips",
        "2 clips without audio",
        "v3, 22.0 % of words wrong",
        "better: word error rate 30.0 % -> 22.0 %",
        "v4, 43 %",
        "loss 1.234",
        "10 min left",
        "version 3: 20.0 % of words changed in 40 clips of 10 recordings; of version 2 before it: 31.0 %",
        "Figures of 4 s ago.",
        "And 2 more with shorter backlogs.",
    ):
        assert said in read.text, said
    assert sum(tag == "svg" for tag, _ in read.elements) == 6


async def test_what_others_wrote_is_text(state: Path) -> None:
    async with asked(state=state) as http:
        pages = [await http.get(place) for place in ("/", "/versions/3", "/versions/3?transcripts=1")]
    for answer in pages:
        read = Reader(answer.text)
        scripts = [attributes for tag, attributes in read.elements if tag == "script"]
        assert all(attributes.get("src") == "/refresh.js" for attributes in scripts)
        assert seen.NASTY in read.text
        assert not any(name.startswith("on") or name == "style" for _, given in read.elements for name in given)


async def test_everything_that_a_page_needs_is_served_here() -> None:
    async with asked() as http:
        html = (await http.get("/")).text
        for place in re.findall(r'(?:src|href)="([^"#]+)"', html):
            assert place.startswith("/"), "nothing comes from elsewhere"
            if not place.startswith("/versions/"):
                answer = await http.get(place)
                assert answer.status_code == 200, place
                assert "://" not in answer.text.replace("http://www.w3.org/2000/svg", "")


async def test_no_name_of_a_file_and_no_text_unless_asked(state: Path) -> None:
    async with asked(state=state) as http:
        front, closed = (await http.get("/")).text, (await http.get("/versions/3")).text
        shown = (await http.get("/versions/3?transcripts=1")).text
        other = (await http.get("/versions/3?transcripts=yes")).text
        told = (await http.get("/metrics")).text
    for html in (front, closed, other, told):
        assert not any(word in html for word in ("secret_name", "market.wav", "clinic.wav", "ahoana", "-8000-"))
    assert all(word in shown for word in ("market.wav", "clinic.wav", "ahoana", "<del>ry</del>"))
    assert shown.count('class="diff"') == 20
    worst = shown.index("The worst clips")
    assert (
        worst
        < shown.index("20 of 20 words wrong")
        < shown.index("The best clips")
        < shown.index(">0 of 20 words wrong")
    )


async def test_each_recording_has_its_line(state: Path) -> None:
    async with asked(state=state) as http:
        read = Reader((await http.get("/versions/3")).text)
        assert "recording 1" in read.text
        assert "recording 2" in read.text
        assert "Version 3" in read.text
        assert "gain at least 6.0 %" in read.text
        missing = await http.get("/versions/9")
    assert missing.status_code == 404
    assert "There is no version 9" in missing.text


async def test_secrets_are_taken_out_of_evidence(tmp_path: Path) -> None:
    folder = tmp_path / "0003"
    folder.mkdir()
    found = json.dumps(seen.evidence()).replace("ry namana", SECRET)
    (folder / "evidence.json").write_text(found)
    async with asked(state=tmp_path) as http:
        html = (await http.get("/versions/3?transcripts=1")).text
    assert "q7/w" not in html
    assert "***" in html


def test_secrets_are_taken_out_of_whatever_the_database_says() -> None:
    redact = Redactor([SECRET])
    given = {"a": [f"x {SECRET}", {SECRET: 1}], "n": None, "f": 1.5}
    assert redacted(given, redact) == {"a": ["x ***", {"***": 1}], "n": None, "f": 1.5}


async def test_health_and_readiness() -> None:
    starting = seen.here(ready=False, doing="starting: loading the model")
    hung = seen.here(hung="the model")
    for here, health, ready in ((starting, 200, 503), (hung, 503, 200), (seen.here(), 200, 200)):
        async with asked(here=lambda here=here: here) as http:
            assert (await http.get("/healthz")).status_code == health
            answer = await http.get("/readyz")
            assert answer.status_code == ready
    async with asked(here=lambda: starting) as http:
        assert (await http.get("/readyz")).text == "starting: loading the model\n"


async def test_a_database_that_was_never_read_leaves_what_is_known_here() -> None:
    async with asked(Look(None, 0.0, "Supabase does not answer.")) as http:
        read = Reader((await http.get("/")).text)
        assert "Supabase does not answer." in read.text
        assert "Listening?" in read.text
        assert "ambara_queue_clips" not in (await http.get("/metrics")).text
        assert (await http.get("/versions/3")).status_code == 404


async def test_an_old_truth_says_how_old_it_is() -> None:
    async with asked(seen.look(600.0, "Supabase does not answer.")) as http:
        html = (await http.get("/")).text
    assert '<p class="age trouble">Figures of 10 min ago. Supabase does not answer.</p>' in html


@pytest.mark.parametrize(
    "changes",
    [
        {"live": None},
        {"queue": {}, "failures": [], "held": {}, "daemons": []},
        {"training": {"active": None, "last": {"version": 4, "status": "failed", "reason": "no room"}}},
        {"training": {"active": {"version": 4, "abandoned": True, "detail": {}}}},
        {"training": None},
    ],
)
async def test_whatever_is_missing_there_is_a_page(changes: dict[str, Any]) -> None:
    bare = seen.here(feed=None, ready=False, version=None, doing="")
    for here in (seen.here(), bare):
        async with asked(seen.look(**changes), lambda here=here: here) as http:
            answer = await http.get("/")
            assert answer.status_code == 200
            assert not Reader(answer.text).open
            assert (await http.get("/metrics")).status_code == 200


def test_the_evidence_is_read_as_the_judge_writes_it() -> None:
    clips = tuple(
        ClipEvidence(f"c{n}", "tape", "extraction", "iray roa telo", 3, Heard("iray", (), 2), Heard(text, (), errors))
        for n, (text, errors) in enumerate((("iray roa telo", 0), ("iray roa", 1)))
    )
    written = Evidence(
        against=2,
        clips=clips,
        anchor=(),
        gain=Interval(0.5, 0.1, 0.9),
        confidence=0.95,
        guards=(GuardFigure("empty drafts", 0.0, 0.0, 0.01),),
        swelling=Invented(4, 0, 0),
    ).to_json()
    version = replace(seen.versions()[2], detail={"comparison": written["comparison"]})
    told = version_page(version, json.loads(json.dumps(written)), PromotionPolicy(), transcripts=True)
    assert told["recordings"][0] == {
        "name": "tape",
        "clips": 2,
        "words": 6,
        "before": "66.7 %",
        "now": "16.7 %",
        "gain": "+50.0",
        "better": True,
        "_gain": pytest.approx(0.5),
    }
    assert told["figures"][0] == ("words", "66.7 %", "16.7 %")
    assert [clip["errors"] for clip in told["worst"]] == [1, 0]
    assert told["worst"][0]["diff"] == [("same", "iray roa"), ("missing", "telo")]
