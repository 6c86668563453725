"""The fault suite's part of pytest: sizes and seed, the fixture `fault`, and the table at the end.

`pytest` runs every fault in a short form with a fixed seed; `make faults` in full with a new one. A failure is played
again by the command that stands under it.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from fault_record import Fault, markdown

SHORT_SEED = 1
WAITING = {
    *("test_net_certificate.py", "test_net_database.py", "test_net_realtime.py", "test_net_rest.py"),
    "test_process_hangs.py",
}
"""Their faults last for minutes of a clock, and for little of a processor."""
_RECORD = pytest.StashKey[Fault]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--faults`, `--fault-seed`, `--fault-table`."""
    group = parser.getgroup("faults")
    group.addoption("--faults", action="store_true", help="the fault suite in full, with a new seed")
    group.addoption("--fault-seed", type=int, default=None, help="the dice of an earlier run")
    group.addoption("--fault-only", default="", help="numbers of faults, such as F05,F07")
    group.addoption("--fault-table", type=Path, default=None, help="write the table to this Markdown file")


def pytest_configure(config: pytest.Config) -> None:
    """The marks, and one seed for this run and all of its workers."""
    config.addinivalue_line("markers", "fault(number, name): a fault of the suite")
    config.addinivalue_line("markers", "long: only in `make faults`")
    workers = getattr(config, "workerinput", None)
    if workers is not None:
        config.option.fault_seed = workers["fault_seed"]
    elif config.option.fault_seed is None:
        config.option.fault_seed = random.randrange(1, 1_000_000) if config.option.faults else SHORT_SEED


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand the seed on to a worker of pytest-xdist."""
    node.workerinput["fault_seed"] = node.config.option.fault_seed


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long ones to `make faults`. There every second one waits, and the others work in the meantime."""
    only = set(filter(None, config.option.fault_only.split(",")))

    def wanted(item: pytest.Item) -> bool:
        mark = item.get_closest_marker("fault")
        if only and (mark is None or mark.args[0] not in only):
            return False
        return config.option.faults or item.get_closest_marker("long") is None

    config.hook.pytest_deselected(items=[item for item in items if not wanted(item)])
    items[:] = filter(wanted, items)
    if config.option.faults:
        items.sort(key=lambda item: item.get_closest_marker("long") is None)
        waiting = [item for item in items if item.path.name in WAITING]
        working = [item for item in items if item.path.name not in WAITING]
        items[:] = [item for pair in zip_longest(waiting, working) for item in pair if item]


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Fault:
    """The record of this test's fault."""
    mark = request.node.get_closest_marker("fault")
    number, name = mark.args
    options = request.config.option
    record = Fault(number, name, options.fault_seed, options.faults, request.node.nodeid)
    request.node.stash[_RECORD] = record
    return record


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Send the record along with the report: the test may have run in another process."""
    report = yield
    record = item.stash.get(_RECORD, None)
    if record is not None and (report.when == "call" or report.failed or report.skipped):
        if report.passed and not record.held:
            report.outcome, report.longrepr = "failed", f"{record.number} showed no invariant, so it showed nothing"
        if report.skipped:
            record.observe(str(call.excinfo.value) if call.excinfo else "")
        result = "pass" if report.passed else "skipped" if report.skipped else "FAIL"
        report.user_properties.append(("fault", record.row(result)))
        if report.failed:
            short = f"pytest '{record.nodeid}' --fault-seed {record.seed}"
            again = f"make faults ONLY={record.number} SEED={record.seed}" if record.full else short
            report.sections.append(("Play it again", again))
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table."""
    rows: dict[str, dict[str, Any]] = {}
    for outcome in ("passed", "skipped", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", ()):  # a file that cannot be collected has none
                if name == "fault":
                    rows[report.nodeid] = value
    if not rows or not config.option.faults:
        return
    terminalreporter.section(f"faults, seed {config.option.fault_seed}")
    for row in sorted(rows.values(), key=lambda row: str(row["fault"])):
        terminalreporter.line(f"{row['result']:4}  {row['fault']:32} {row['healed in']:>8}  {row['held']}")
        terminalreporter.line(f"      {row['injected']}" + (f" -- {row['observed']}" if row["observed"] else ""))
    if config.option.fault_table:
        config.option.fault_table.write_text(markdown(list(rows.values())), encoding="utf-8")
