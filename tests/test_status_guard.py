"""Whom the page answers, and what its answers let a browser do."""

from __future__ import annotations

import pytest
from pages import asked

from daemon.status.guard import host_name


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
