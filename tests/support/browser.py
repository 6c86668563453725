"""A headless Chromium, asked through its own protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from witness import GUARD_S, until

from daemon.local.process import Nursery

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server"),
    *("--hide-scrollbars", "--remote-debugging-port=0"),
)


class Tab:
    """One page of a browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []

    async def listen(self) -> None:
        """Hand out answers, and keep what the page tells by itself."""
        async for text in self._socket:
            found = json.loads(text)
            if "id" in found:
                self._answers.pop(found["id"]).set_result(found)
            else:
                self.events.append(found)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser for something."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        session = {"sessionId": self.session} if self.session else {}
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters} | session))
        found = await answer
        assert "error" not in found, (method, found)
        return dict(found["result"])

    async def open(self, url: str) -> None:
        """Go there, and wait until everything is loaded."""
        before = self.said("Page.loadEventFired")
        await self.call("Page.navigate", url=url)
        await until(lambda: len(self.said("Page.loadEventFired")) > len(before), f"{url} loaded")

    async def ask(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def press(self, key: str, code: int, text: str = "") -> None:
        """A key, down and up."""
        for kind in ("keyDown", "keyUp"):
            given = {"text": text} if text and kind == "keyDown" else {}
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **given)

    async def look(self, *, width: int, height: int, dark: bool = False, phone: bool = False) -> None:
        """The screen that it has."""
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def becomes(self, expression: str) -> None:
        """Wait until something is true in the page."""
        waiting = (
            f"new Promise((done) => {{ const look = () => ({expression}) ? done() : setTimeout(look, 50); look(); }})"
        )
        async with asyncio.timeout(GUARD_S):
            await self.ask(waiting)

    async def picture(self) -> bytes:
        """All of the page as a PNG."""
        found = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(found["data"])

    def said(self, method: str) -> list[dict[str, Any]]:
        """What the page told by itself, of one kind."""
        return [each["params"] for each in self.events if each["method"] == method]

    def complaints(self) -> list[str]:
        """Errors and warnings in its console, and requests that failed."""
        logged = [each["entry"] for each in self.said("Log.entryAdded")]
        return [
            *(f"{each['level']}: {each['text']}" for each in logged if each["level"] in ("error", "warning")),
            *(str(each["exceptionDetails"]) for each in self.said("Runtime.exceptionThrown")),
            *(str(each["args"]) for each in self.said("Runtime.consoleAPICalled")),
            *(each["errorText"] for each in self.said("Network.loadingFailed") if not each.get("canceled")),
        ]


@asynccontextmanager
async def a_tab(folder: Path) -> AsyncIterator[Tab]:
    """A browser of its own with one empty page. `folder` takes its profile and its log."""
    nursery, profile = Nursery(), folder / "profile"
    child = _start(nursery, folder, profile)
    try:
        told = profile / "DevToolsActivePort"
        await until(lambda: told.exists() and len(told.read_text().split()) == 2, "a browser")
        port, path = told.read_text().split()
        async with connect(f"ws://127.0.0.1:{port}{path}", max_size=None) as socket, asyncio.TaskGroup() as tasks:
            tab = Tab(socket)
            listener = tasks.create_task(tab.listen())
            target = await tab.call("Target.createTarget", url="about:blank")
            attached = await tab.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
            tab.session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                await tab.call(f"{domain}.enable")
            yield tab
            listener.cancel()
    finally:
        child.kill()
        child.wait()
        nursery.close()


def _start(nursery: Nursery, folder: Path, profile: Path) -> subprocess.Popen[bytes]:
    assert CHROMIUM
    folder.mkdir(parents=True, exist_ok=True)
    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
    return nursery.spawn(command, log=folder / "chromium.log", env=os.environ | {"HOME": str(folder)}, cwd=folder)
