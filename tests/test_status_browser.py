"""The page in a real browser: no complaint in its console, nothing from elsewhere, no page wider than a phone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import axe
import pytest
import seen
from browser import CHROMIUM, Tab, a_tab
from pages import Given

from daemon.learning.registry import Registry
from daemon.local.sockets import free_port
from daemon.sections import StatusSettings
from daemon.status.page import Page
from daemon.status.server import serve
from handlers.policy import Policy

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="a real browser: apt install chromium")

PLACES = ("/", "/versions/3", "/versions/3?transcripts=1", "/versions/9")
SOON = "const later = setInterval; setInterval = (call) => later(call, 50);"

LABELS = """
[...document.querySelectorAll('svg')].flatMap((svg) => {
  const texts = [...svg.querySelectorAll('text')], boxes = texts.map((each) => each.getBoundingClientRect());
  const all = svg.getBoundingClientRect(), found = [];
  const within = (box, x, y) => x > box.left && x < box.right && y > box.top && y < box.bottom;
  boxes.forEach((a, i) => {
    if (a.left < all.left || a.right > all.right) found.push(`cut off: ${texts[i].textContent}`);
    boxes.slice(i + 1).forEach((b, j) => {
      if (a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)
        found.push(`${texts[i].textContent} on ${texts[i + 1 + j].textContent}`);
    });
  });
  for (const line of svg.querySelectorAll('.line:not(.key), .mark, .bar:not(.key), .count')) {
    const matrix = line.getScreenCTM(), length = line.getTotalLength();
    for (let at = 0; at <= length; at += 2) {
      const point = line.getPointAtLength(at).matrixTransform(matrix);
      const on = boxes.findIndex((box) => within(box, point.x, point.y));
      if (on >= 0) { found.push(`a ${line.getAttribute('class')} crosses ${texts[on].textContent}`); break; }
    }
  }
  return found;
})
"""


@asynccontextmanager
async def page(folder: Path, given: Given) -> AsyncIterator[tuple[Tab, str]]:
    """A browser, and the address of a page that shows what is given."""
    evidence = folder / "models" / "0003" / "evidence.json"
    evidence.parent.mkdir(parents=True)
    evidence.write_text(json.dumps(seen.evidence()))
    app = Page(given, Registry(folder / "models"), seen.here, Policy, str).app("127.0.0.1")  # type: ignore[arg-type]
    port = free_port()
    async with asyncio.TaskGroup() as tasks:
        server = tasks.create_task(serve(app, StatusSettings(port=port)))
        async with a_tab(folder / "browser") as tab:
            yield tab, f"http://127.0.0.1:{port}"
        server.cancel()


async def test_on_every_screen(tmp_path: Path) -> None:
    """Desk and phone, light and dark: nothing complains, nothing is fetched from elsewhere, nothing is cut off."""
    async with page(tmp_path, Given(seen.look())) as (tab, url):
        for phone, dark in ((False, False), (False, True), (True, False), (True, True)):
            width = 360 if phone else 1280
            await tab.look(width=width, height=800, dark=dark, phone=phone)
            for place in PLACES:
                await tab.open(url + place)
                assert await tab.ask("document.documentElement.scrollWidth") <= width, (place, width)
                assert await tab.ask("document.querySelector('h1').innerText")
            ground = await tab.ask("getComputedStyle(document.body).backgroundColor")
            assert (ground == "rgb(255, 255, 255)") is not dark
        asked = [each["request"]["url"] for each in tab.said("Network.requestWillBeSent")]
        assert [each for each in asked if not each.startswith(url)] == []
        # The one thing that is not there is the page of a version that is not there.
        assert [each for each in tab.complaints() if "404" not in each] == []
        assert len([each for each in tab.complaints() if "404" in each]) == 4


async def test_nothing_keeps_people_from_using_it(tmp_path: Path) -> None:
    """As axe-core sees it: names, contrasts, structure, in either colours and on either screen."""
    program = axe.source()
    async with page(tmp_path, Given(seen.look(600.0, "Supabase does not answer."))) as (tab, url):
        for phone, dark in ((False, False), (True, True)):
            await tab.look(width=360 if phone else 1280, height=800, dark=dark, phone=phone)
            for place in PLACES:
                await tab.open(url + place)
                await tab.ask("document.querySelectorAll('details').forEach((each) => each.open = true)")
                await tab.ask(f"{program}; 0")
                assert await tab.ask(axe.FINDINGS) == [], place


async def test_no_label_lies_on_another_or_on_a_line(tmp_path: Path) -> None:
    """Of any plot, on a desk or a phone."""
    async with page(tmp_path, Given(seen.look())) as (tab, url):
        for phone in (False, True):
            await tab.look(width=360 if phone else 1280, height=800, phone=phone)
            await tab.open(url)
            assert await tab.ask("document.querySelectorAll('svg .name').length") > 10
            assert await tab.ask(LABELS) == []


async def test_a_script_in_a_name_is_never_run(tmp_path: Path) -> None:
    async with page(tmp_path, Given(seen.look())) as (tab, url):
        for place in PLACES[:3]:
            await tab.open(url + place)
            assert await tab.ask("document.querySelectorAll('script:not([src])').length") == 0
        assert tab.said("Page.javascriptDialogOpening") == []
        assert seen.NASTY in await tab.ask("document.body.innerText")


async def test_without_a_script_it_says_the_same(tmp_path: Path) -> None:
    async with page(tmp_path, Given(seen.look())) as (tab, url):
        await tab.call("Emulation.setScriptExecutionDisabled", value=True)
        await tab.open(url)
        assert await tab.ask("document.querySelectorAll('.card').length") == 6
        assert await tab.ask("document.querySelectorAll('svg').length") == 6
        assert await tab.ask("document.querySelector('meta[http-equiv=refresh]').content") == "30"


async def test_it_keeps_itself_fresh_and_says_when_it_cannot(tmp_path: Path) -> None:
    given = Given(seen.look())
    async with page(tmp_path, given) as (tab, url):
        await tab.call("Page.addScriptToEvaluateOnNewDocument", source=SOON)
        await tab.open(url)
        await tab.ask("document.querySelector('#wer summary').click()")
        given.show(seen.look(queue={"ready": 4711}, failures=[]))
        await tab.becomes("document.querySelector('main').innerText.includes('4,711 clips')")
        assert await tab.ask("document.querySelector('#wer details').open"), "what was unfolded stays so"
        given.show(None)
        await tab.becomes("document.querySelector('.age').innerText.includes('does not answer')")


async def test_by_keyboard_alone(tmp_path: Path) -> None:
    async with page(tmp_path, Given(seen.look())) as (tab, url):
        await tab.open(url)
        await tab.press("Tab", 9)
        assert await tab.ask("document.activeElement.className") == "skip"
        assert await tab.ask("document.activeElement.getBoundingClientRect().left") >= 0, "it is seen"
        await tab.press("Enter", 13, "\r")
        await tab.becomes("document.activeElement.id == 'main'")
        reached = set()
        for _ in range(40):
            await tab.press("Tab", 9)
            reached.add(await tab.ask("document.activeElement.tagName + (document.activeElement.pathname ?? '')"))
        assert {"SUMMARY", "A/versions/3"} <= reached
