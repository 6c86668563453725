"""Takes the pictures of the page that stand in docs/: from a whole demo, at its end, with real trainings behind it.

PYTHONPATH=tests/support python tests/support/pictures.py [--rounds 3] [--to docs]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import threading
from pathlib import Path

from browser import a_tab

from daemon.local.demo.play import play
from daemon.local.resident import page_of

MEASURED_S = 50.0
"""Seconds after which the daemon has measured the last corrections."""
PLOTS = 6
SCREENS = {
    "page": (1000, False, False),
    "page-phone": (390, True, True),
}
"""Name -> width in CSS pixels, dark, phone."""


class Photographer:
    """Follows the demo, and takes the pictures before it ends."""

    def __init__(self, folder: Path, to: Path) -> None:
        self._folder = folder
        self._to = to

    def phase(self, title: str) -> None:
        """The last phase is when everything is there; the demo waits for this."""
        if title == "Stopping":
            thread = threading.Thread(target=lambda: asyncio.run(self._take()))
            thread.start()
            thread.join()

    def say(self, line: str) -> None:
        """Nobody listens."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Nobody looks."""

    async def _take(self) -> None:
        url = page_of(self._folder)
        assert url
        await asyncio.sleep(MEASURED_S)
        async with a_tab(self._folder / "browser") as tab:
            await tab.open(url)
            while await tab.ask("document.querySelectorAll('svg').length") < PLOTS:
                await asyncio.sleep(1.0)  # it has not been told yet
                await tab.open(url)
            for name, (width, dark, phone) in SCREENS.items():
                await tab.look(width=width, height=800, dark=dark, phone=phone)
                await tab.open(url)
                (self._to / f"{name}.png").write_bytes(await tab.picture())
            assert tab.complaints() == []


def main() -> None:
    """Play the demo."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--to", type=Path, default=Path("docs"))
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="ambara-pictures-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL may run under another user
        story = asyncio.run(play(given.rounds, 24, folder, Photographer(folder, given.to)))
    assert story.words_changed() == 0


if __name__ == "__main__":
    main()
