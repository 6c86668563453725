"""The page: what it says, whom it answers, and that nothing in it is obeyed."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
import seen

from daemon.learning.registry import Registry
from daemon.redaction import Redactor
from daemon.status.guard import host_name
from daemon.status.here import Here
from daemon.status.page import Page
from daemon.status.truth import Look, redacted
from handlers.policy import Policy

SECRET = "sb_secret_q7/w+x=Zz_9"


class Given:
    """Something to look at that needs no database."""

    def __init__(self, look: Look) -> None:
        self._look: Look | None = look

    def show(self, look: Look | None) -> None:
        """From now on; None breaks the page."""
        self._look = look

    async def look(self) -> Look:
        assert self._look, "broken on purpose"
        return self._look


@asynccontextmanager
async def asked(
    look: Look | None = None, here: Callable[[], Here] = seen.here, *, state: Path = Path("/nowhere"), host: str = ""
) -> AsyncIterator[httpx.AsyncClient]:
    page = Page(Given(look or seen.look()), Registry(state), here, Policy, Redactor([SECRET]))  # type: ignore[arg-type]
    transport = httpx.ASGITransport(page.app(host or "127.0.0.1"))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8765") as http:
        yield http


class Reader(HTMLParser):
    """Elements with their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} ends what it did not begin"

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A host that judged version 3."""
    import json

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
    assert sum(tag == "svg" for tag, _ in read.elements) == 4


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
    import json

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


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "10.1.2.3", ""])
async def test_another_name_is_refused(host: str) -> None:
    async with asked() as http:
        for place in ("/", "/metrics", "/healthz", "/versions/3?transcripts=1"):
            answer = await http.get(place, headers={"Host": host})
            assert answer.status_code == 421, place
            assert "v3" not in answer.text


@pytest.mark.parametrize("host", ["localhost:8765", "LOCALHOST", "127.0.0.1", "[::1]:8765"])
async def test_our_own_names_are_served(host: str) -> None:
    async with asked() as http:
        assert (await http.get("/healthz", headers={"Host": host})).status_code == 200


async def test_served_to_a_network_any_address_will_do_and_no_name() -> None:
    async with asked(host="0.0.0.0") as http:
        assert (await http.get("/healthz", headers={"Host": "10.1.2.3:8765"})).status_code == 200
        assert (await http.get("/healthz", headers={"Host": "evil.example"})).status_code == 421


def test_names_in_headers() -> None:
    assert [host_name(h) for h in ("A:1", "[::1]:80", "[::1", "a", ":")] == ["a", "::1", "::1", "a", ""]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
async def test_it_can_only_be_read(method: str) -> None:
    async with asked() as http:
        answer = await http.request(method, "/")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


async def test_what_an_answer_lets_a_browser_do() -> None:
    async with asked() as http:
        for place in ("/", "/metrics", "/style.css", "/nothing", "/versions/9"):
            headers = (await http.get(place, headers={"Origin": "http://evil.example"})).headers
            assert headers["content-security-policy"].startswith("default-src 'none'; ")
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize("place", ["/../page.py", "/templates/page.html", "/..%2fpage.py", "/versions/x"])
async def test_no_other_file_is_served(place: str) -> None:
    async with asked() as http:
        assert (await http.get(place)).status_code == 404


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
