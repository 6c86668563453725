"""Real trainings, each in a process that can be killed: ``python training_storm_whisper.py``.

For each line ``[DATA, OUT]`` on its input it forks one, and tells as lines of JSON its ``pid``, each step, its facts,
and how it ``ended``. What takes seconds to import is imported once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from daemon.asr import families
from daemon.asr.whisper import train as _imported  # noqa: F401 - before it forks
from daemon.local.tiny import BASE

OPTIONS = {
    "base": str(BASE), "device": "cpu", "learning_rate": 1e-3, "batch_size": 4, "gradient_accumulation": 1,
    "epochs": 8, "save_steps": 2, "eval_steps": 1000,
}  # fmt: skip
"""20 clips: 5 steps an epoch, 40 in all. Dropout and masks are on: chance has to be resumed, too."""


def train(data: Path, out: Path) -> dict[str, Any]:
    """Train, or go on. Returns the facts."""
    result = families.train(
        "whisper",
        OPTIONS,
        data,
        out,
        report=lambda progress: _tell(progress.facts()),
        stop=lambda: False,
        resume=True,
    )
    return dict(result.facts())


def _tell(facts: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Until the input ends."""
    for line in sys.stdin:
        data, out = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _tell({"pid": os.getpid()})
            _tell(train(Path(data), Path(out)))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        _tell({"ended": os.waitstatus_to_exitcode(status)})


if __name__ == "__main__":
    main()
