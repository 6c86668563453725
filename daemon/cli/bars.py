"""How far a command is: bars with the time that is left in a terminal, plain lines in a file or a pipe."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from daemon.status.words import lasting

LINES = 10
"""So many of each work where there is no terminal."""


class Bars:
    """A bar for each work. `line` says a plain line; with `transient` a bar that is full gives way to one."""

    def __init__(self, console: Console, *, line: Callable[[str], None] | None = None, transient: bool = False) -> None:
        columns = (
            *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), _Left()),
            TextColumn("{task.fields[note]}"),
        )
        self._terminal = console.is_terminal
        self._progress = Progress(*columns, console=console, transient=transient)
        self._line = line or (lambda said: console.print(Text(said), soft_wrap=True))
        self._transient = transient
        self._tasks: dict[str, TaskID] = {}
        self._lines: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def show(
        self, what: str, done: int, total: int, *, bar: str = "", note: str = "", left_s: float | None = None
    ) -> None:
        """So far is it. Work of several names may share a `bar`; `left_s`: seconds, where the work knows them."""
        name = bar or what
        if self._terminal and not (self._transient and done >= total):
            self._draw(name, what, done, total, note, left_s)
        elif done >= total or not self._terminal:
            self._say(name, what, done, total, note)

    def clear(self) -> None:
        """Take away what is drawn: something else begins."""
        for task in self._tasks.values():
            self._progress.remove_task(task)
        self._tasks.clear()

    def _draw(self, name: str, what: str, done: int, total: int, note: str, left_s: float | None) -> None:
        if name not in self._tasks:
            self._progress.start()  # not earlier: a refusal comes without an empty bar
            self._tasks[name] = self._progress.add_task(what, note="", left_s=None)
        self._progress.update(
            self._tasks[name], description=what, completed=done, total=total, note=note, left_s=left_s
        )

    def _say(self, name: str, what: str, done: int, total: int, note: str) -> None:
        part = LINES * done // max(1, total)
        if part <= self._lines.get(name, 0):
            return
        self._lines[name] = part
        if name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))
        self._line(f"{what}: {done:,} of {total:,}" + (f", {note}" if note else ""))


class _Left(TimeRemainingColumn):
    """What the work itself says is left, or else what follows from its pace."""

    def render(self, task: Task) -> Text:
        """As Rich asks."""
        left = task.fields["left_s"]
        if left is None or task.finished:
            return super().render(task)
        return Text(f"{lasting(left)} left", style="progress.remaining")
