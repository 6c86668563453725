"""What repeats itself is held back and counted; nothing else is, and no error ever."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.contextvars import bound_contextvars

from daemon import logs
from daemon.rate_limit import MOST, MOST_LATER, WINDOW_S, RateLimit

log = structlog.get_logger("daemon.somewhere")


class Journal:
    """Everything that passes, and a clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.stream = io.StringIO()
        logs.setup("debug", "json", env={}, stream=self.stream)
        handler = next(each for each in logging.getLogger().handlers if isinstance(each, logs._Handler))
        handler.removeFilter(handler.limit)
        handler.limit = RateLimit(clock=lambda: self.now_s)
        handler.addFilter(handler.limit)

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Those of one event."""
        every = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        return [line for line in every if line["event"] == event]

    def told(self) -> list[tuple[str, int, int]]:
        """Of which kind, how many, in how many seconds."""
        return [(line["of"], line["lines"], line["seconds"]) for line in self.lines("lines held back")]


@pytest.fixture
def journal() -> Iterator[Journal]:
    root, factory = logging.getLogger(), logging.getLogRecordFactory()
    handlers, level = list(root.handlers), root.level
    yield Journal()
    root.handlers[:], root.level = handlers, level
    logging.setLogRecordFactory(factory)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def test_a_flood_is_cut_and_counted_and_cut_harder_while_it_lasts(journal: Journal) -> None:
    for _ in range(10_000):
        log.info("clips not drafted", reasons={"audio-missing": 1})
    assert len(journal.lines("clips not drafted")) == MOST
    assert journal.told() == []
    for minute in range(3):
        journal.now_s += WINDOW_S
        for _ in range(50):
            log.info("clips not drafted")
        assert len(journal.lines("clips not drafted")) == MOST + MOST_LATER * (minute + 1)
    flood = "clips not drafted"
    assert journal.told() == [(flood, 10_000 - MOST, 60), *[(flood, 50 - MOST_LATER, 60)] * 2]
    journal.now_s += WINDOW_S
    logs.settle()
    assert len(journal.told()) == 4, "the count does not wait for another line of its kind"
    journal.now_s += WINDOW_S
    logs.settle()
    for _ in range(MOST):
        log.info("clips not drafted")
    assert len(journal.lines("clips not drafted")) == 2 * MOST + 3 * MOST_LATER, "after a quiet minute all is as before"
    assert len(journal.told()) == 4


def test_other_kinds_pass_while_one_is_held_back(journal: Journal) -> None:
    """Other events, and the same one at another level or from another logger."""
    for _ in range(MOST + 1):
        log.warning("feed", state="connecting")
    log.info("feed", state="live")
    log.info("promoted", version=7)
    log.info("stopped")
    structlog.get_logger("daemon.elsewhere").warning("feed")
    assert len(journal.lines("feed")) == MOST + 2
    assert len(journal.lines("promoted")) == len(journal.lines("stopped")) == 1


def test_no_error_is_ever_held_back(journal: Journal) -> None:
    for _ in range(3 * MOST):
        log.error("a turn of the clock failed")
        logging.getLogger("foreign").critical("gone")
    assert len(journal.lines("a turn of the clock failed")) == len(journal.lines("gone")) == 3 * MOST


def test_another_librarys_lines_are_of_a_kind_by_their_place(journal: Journal) -> None:
    """Their words may differ each time."""
    foreign = logging.getLogger("foreign")
    for number in range(MOST + 20):
        foreign.warning("request %s failed", number)
    foreign.warning("something else")
    logs.settle(at_the_end=True)
    assert journal.told() == [("foreign: request 0 failed", 20, 0)]
    assert len(journal.lines("something else")) == 1


def test_what_is_held_back_at_the_end_is_told(journal: Journal) -> None:
    for _ in range(MOST + 3):
        log.debug("clip not drafted")
    journal.now_s += 7
    logs.settle(at_the_end=True)
    logs.settle(at_the_end=True)
    assert journal.told() == [("clip not drafted", 3, 7)]
    assert journal.lines("lines held back")[0]["level"] == "debug"


def test_the_count_is_not_about_what_happens_now(journal: Journal) -> None:
    """It comes with a line of another round; the worker is the same."""
    with bound_contextvars(worker="w"):
        with bound_contextvars(round=1, version=2, run=3, clip="c"):
            for _ in range(MOST + 1):
                log.info("drafted")
        journal.now_s += WINDOW_S
        with bound_contextvars(round=2, version=3, run=4, clip="d"):
            log.info("swapped")
            assert journal.lines("swapped")[0]["round"] == 2
    (count,) = journal.lines("lines held back")
    assert count["worker"] == "w"
    assert not {"round", "version", "run", "clip"} & count.keys()


def test_several_threads(journal: Journal) -> None:
    def work() -> None:
        for _ in range(500):
            log.info("heard")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logs.settle(at_the_end=True)
    assert len(journal.lines("heard")) == MOST
    assert journal.told() == [("heard", 8 * 500 - MOST, 0)]
