"""Who looks at the page leaves nothing behind in the daemon's memory; the figures come from `benchmarks/page.py`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "page.py"


def test_whoever_looks_leaves_nothing_behind() -> None:
    """It ends with 1 where memory grows. Each read of the database is another truth, of which only the last is kept."""
    command = [sys.executable, str(BENCHMARK), "--requests", "200", "--clips", "1000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^\| (\d+) \| (\d+) \| [\d.]+ \| (\d+) \|", done.stdout, re.MULTILINE)
    assert [int(asked) for asked, _, _ in rows] == [40, 80, 120, 160, 200]
    assert int(rows[-1][1]) > int(rows[0][1]), "it was read again meanwhile"
    assert int(rows[-1][2]) < int(rows[0][2]) + 10, "files: one more or less may be a question to the database"
