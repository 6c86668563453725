"""`ambara status --watch`: the same screen, again and again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from daemon.cli.context import say_error
from daemon.cli.plain import moment, text
from daemon.cli.status_view import screen
from daemon.errors import TemporaryError

EVERY_S = 3.0
"""Seconds from an answer to the next question: a database of a million clips takes one of them to answer."""

Look = Callable[[], dict[str, Any]]


def watch(look: Look, url: str, *, as_json: bool) -> None:
    """Show what `look` finds until Ctrl-C. A project that is away after the first answer is told and waited for.

    Raises `ConfigurationError` when something has to be set right first, and what the first look raises.
    """
    console = Console(highlight=False)
    try:
        if as_json:
            _lines(look)
        elif console.is_terminal:
            _live(look, url, console)
        else:
            _screens(look, url)
    except KeyboardInterrupt:
        return


def _lines(look: Look) -> None:
    for found in _looks(look, say_error):
        typer.echo(json.dumps(found))  # a line of its own, and written out at once


def _screens(look: Look, url: str) -> None:
    """Into a file or a pipe: one below the other."""
    console = Console(highlight=False, soft_wrap=True)
    for found in _looks(look, say_error):
        for part in screen(found, url):
            console.print(part)
        console.print()


def _live(look: Look, url: str, console: Console) -> None:
    with Live(console=console, screen=True, auto_refresh=False) as live:
        shown: list[RenderableType] = []

        def away(why: str) -> None:
            live.update(Group(*shown, Text(), text(why, "yellow")), refresh=True)

        for found in _looks(look, away):
            at = f"{moment(found.get('now'))}, again every {EVERY_S:.0f} s; Ctrl-C ends this"
            shown = [*screen(found, url), Text(), text(at, "dim")]
            live.update(Group(*shown), refresh=True)


def _looks(look: Look, away: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """What is found, for ever. `away` hears why there is no answer, once there was one."""
    yield look()
    while True:
        time.sleep(EVERY_S)
        try:
            found = look()
        except TemporaryError as error:
            away(str(error))
        else:
            yield found
