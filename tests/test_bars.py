"""How far a command is, in a terminal and in a pipe."""

from __future__ import annotations

import io

from rich.console import Console

from daemon.cli.bars import Bars


def made(*, terminal: bool) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=terminal, width=100, highlight=False), out


def test_in_a_pipe_there_is_a_line_for_each_tenth() -> None:
    console, out = made(terminal=False)
    with Bars(console) as bars:
        for done in range(1001):
            bars.show("drafting", done, 1000, note="loss 1.2" if done == 1000 else "")
        bars.show("drafting", 1000, 1000)
        bars.show("nothing to do", 0, 0)
    lines = out.getvalue().splitlines()
    assert lines[:2] == ["drafting: 100 of 1,000", "drafting: 200 of 1,000"]
    assert lines[-1] == "drafting: 1,000 of 1,000, loss 1.2"
    assert len(lines) == 10


def test_in_a_terminal_there_is_a_bar_with_the_time_that_is_left() -> None:
    console, out = made(terminal=True)
    with Bars(console) as bars:
        bars.show("training", 43, 100, bar="steps", left_s=600, note="loss 1.234")
        bars.show("trying held-out clips", 50, 100, bar="steps", left_s=500)
    last = out.getvalue().rpartition("\r")[2] or out.getvalue()
    assert "\x1b" in out.getvalue()
    assert "trying held-out clips" in last
    assert "50/100" in last
    assert "8 min left" in last
    assert last.count("/100") == 1, "both are one bar"


def test_a_full_bar_gives_way_to_a_line_and_is_said_once() -> None:
    console, out = made(terminal=True)
    said: list[str] = []
    with Bars(console, line=said.append, transient=True) as bars:
        bars.show("drafted by version 1", 3, 40)
        for _ in range(3):
            bars.show("drafted by version 1", 40, 40)
        bars.show("run 1: training", 3, 9)
        bars.clear()
        bars.show("run 1: training", 4, 9)
    assert said == ["drafted by version 1: 40 of 40"]
    assert "run 1: training" in out.getvalue()


def test_nothing_was_shown() -> None:
    """As when a command is refused: not even an empty line."""
    console, out = made(terminal=True)
    with Bars(console):
        pass
    assert out.getvalue() == ""
