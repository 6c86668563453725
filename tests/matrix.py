"""What rests on Python, PyTorch and transformers, tried with several of each: `make matrix`.

Every row gets a virtual environment of its own, in a temporary folder that is removed again. A Python is looked for on
PATH; the rest is whatever pip finds, so a CUDA build of PyTorch (gigabytes) unless an index of CPU builds is set up.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
NOW, BEFORE = "transformers>=5,<6", "transformers>=4.57,<5"
PARTS = (
    *("tests/asr", "tests/handlers", "tests/test_cli_train.py", "tests/test_trainer.py", "tests/test_loading.py"),
    *("tests/test_pipeline.py", "tests/test_redraft.py", "tests/test_registry.py", "tests/test_registry_disk.py"),
    *("tests/test_child_job.py", "tests/test_child_process.py", "tests/test_child_stop.py"),
    *("tests/test_child_training.py", "tests/test_hub.py", "tests/test_export.py", "tests/test_doctor_host.py"),
    *("tests/test_daemon_drafting.py", "tests/test_daemon_learning.py", "tests/test_demo.py"),
    "tests/faults/test_hostile_models.py",
)
SHOWN = ("torch", "transformers", "huggingface_hub", "datasets", "peft")
LONGEST_S = 7200


@dataclass(frozen=True)
class Row:
    python: str
    torch: str
    transformers: str

    def __str__(self) -> str:
        return f"{self.python} · {self.torch} · {self.transformers}"


ROWS = (
    Row("3.11", "torch==2.13.0", NOW),
    Row("3.11", "torch==2.13.0", BEFORE),
    Row("3.11", "torch==2.6.0", NOW),
    Row("3.11", "torch==2.6.0", BEFORE),
    Row("3.12", "torch>=2.13,<3", NOW),
    Row("3.13", "torch>=2.13,<3", NOW),
    Row("3.13", "torch>=2.13,<3", BEFORE),
)


@dataclass
class Tried:
    python: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    result: str = ""
    wrong: list[str] = field(default_factory=list)
    """Names of tests, or lines of what pip said."""


def main() -> int:
    """Try the rows; 1 if one of those that could be had is not all well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows in which this text stands, such as 3.13 or ==2.6")
    parser.add_argument("--workers", default="2", help="how many tests at a time (default 2)")
    parser.add_argument("--logs", type=Path, default=ROOT / "build" / "matrix", help="folder for what is said")
    parser.add_argument("parts", nargs="*", help="tests to run (default: what rests on these packages)")
    given = parser.parse_args()
    say = Console(width=160).print
    table = Table("Python", *SHOWN, "result", title="What it was tried with")
    bad = 0
    for row in (each for each in ROWS if given.only in str(each)):
        say(f"{row} …")
        logs = given.logs.resolve() / re.sub(r"[^\w.=]+", "-", str(row))
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir(parents=True)
        with tempfile.TemporaryDirectory(prefix="ambara-matrix-") as scratch:
            Path(scratch).chmod(0o711)  # PostgreSQL does not run as root, and passes through
            tried = try_row(row, Path(scratch), logs, ("-n", given.workers, *(given.parts or PARTS)))
        say(f"  {tried.result}", *tried.wrong, sep="\n  ", markup=False)
        table.add_row(tried.python or row.python, *(tried.versions.get(each, "") for each in SHOWN), tried.result)
        bad += bool(tried.wrong)
    say(table)
    return min(bad, 1)


def try_row(row: Row, scratch: Path, logs: Path, tests: tuple[str, ...]) -> Tried:
    """Install what a row says and run the tests with it."""
    tried = Tried()
    if (python := find_python(row.python)) is None:
        tried.result = "not here: no such Python on PATH"
        return tried
    own = str(scratch / "bin" / "python")
    log, report = logs / "pip.log", logs / "junit.xml"
    wanted = (row.torch, row.transformers, "--editable", ".[local,dev]")
    if run(log, python, "-m", "venv", str(scratch)) or run(log, own, "-m", "pip", "install", "-q", *wanted):
        tried.result = "could not be installed"
        tried.wrong = [line for line in log.read_text().splitlines() if line.startswith("ERROR")][-3:] or [str(log)]
        return tried
    tell = f"import sys\nfrom importlib.metadata import version\nprint(sys.version.split()[0], *map(version, {SHOWN}))"
    tried.python, *found = subprocess.check_output([own, "-c", tell], text=True).split()
    tried.versions = dict(zip(SHOWN, found, strict=True))
    status = run(logs / "pytest.log", own, "-m", "pytest", *tests, "--dist", "loadfile", f"--junitxml={report}")
    tried.result, tried.wrong = read_report(report) if report.exists() else ("the tests did not run", [])
    if status and not tried.wrong:
        tried.wrong = [f"pytest ended with {status}: {logs / 'pytest.log'}"]
    return tried


def run(log: Path, *command: str) -> int:
    """The exit status of a command whose output goes to `log`. 124: it took too long."""
    clean = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    with log.open("a") as out:
        try:
            return subprocess.run(
                command, cwd=ROOT, env=clean, stdout=out, stderr=out, timeout=LONGEST_S, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            return 124


def find_python(version: str) -> str | None:
    """The Python of this version: the running one, or one on PATH that starts."""
    if sys.version.startswith(f"{version}."):
        return sys.executable
    found = shutil.which(f"python{version}")
    return found if found and subprocess.run([found, "-V"], check=False, capture_output=True).returncode == 0 else None


def read_report(file: Path) -> tuple[str, list[str]]:
    """pytest's JUnit file as one line, and the tests that went wrong."""
    cases = list(ElementTree.parse(file).iter("testcase"))
    wrong = [
        f"{each.get('classname')}::{each.get('name')}"
        for each in cases
        if each.find("failure") is not None or each.find("error") is not None
    ]
    skipped = sum(each.find("skipped") is not None for each in cases)
    return f"{len(cases) - len(wrong) - skipped} passed, {len(wrong)} failed, {skipped} skipped", wrong


if __name__ == "__main__":
    sys.exit(main())
