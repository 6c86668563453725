"""The process that trains a model, or compares two: ``python -m daemon.learning.child JOB.json [PARENT [MEETING]]``.

It has no key, no network and no database (see `confine`), reads its job from the file, and tells what it does as
lines of JSON on standard output, one event each:

    {"event": "progress", ...}    any number of times
    {"event": "done", "result": {...}}, {"event": "failed", "reason": "a-slug", "message": "A sentence."} or
    {"event": "stopped"}    once, last

SIGTERM or SIGINT asks it to stop: it then leaves a whole checkpoint and ends with 0, as when it is done; failed is 1.

Where several processes are to train together, it starts them (see `together`). Each is a child as this one, and finds
the others by MEETING (see `ranks.join`) before it leaves the network.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

# Nothing heavy may be imported before `confine` was called: numpy and what needs it come later.
from daemon.asr.errors import ModelError, of_the_machine, out_of_memory
from daemon.asr.training import TrainAgainError, TrainingError
from daemon.learning.confine import OFFLINE_ONLY, OrphanError, confine, end_with, leave_network
from daemon.learning.durable import sync, write_whole
from daemon.learning.job import EvaluateJob, Job, TrainJob, read
from daemon.learning.together import train_together

if TYPE_CHECKING:
    from daemon.asr.judging import HeldOut

LONGEST_MESSAGE = 1_000
"""Characters. A line has to stay under what the parent reads at once."""

Say = Callable[..., None]
Stop = Callable[[], bool]


class _FailedError(Exception):
    """The job cannot be done; the text is one sentence."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def main(arguments: list[str]) -> int:
    """Do the job of the arguments. Returns the exit status."""
    say = _take_stdout()
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    file = Path(arguments[0])
    parent = int(arguments[1]) if len(arguments) > 1 else None
    meeting = arguments[2] if len(arguments) > 2 else None
    try:
        if parent and meeting:
            end_with(parent)  # whoever started it was confined, and so it is from its birth
        else:
            confine(parent)
    except OrphanError:
        return 1
    try:
        job = read(file)
        if isinstance(job, TrainJob) and job.processes * job.nodes > 1 and not meeting:
            return _end_as(train_together(job, file, say, stop.is_set), say)
        network = _leave_network(job, meeting, say, stop.is_set)
        if network:
            say("progress", network=network)
            result = _do(job, say, stop.is_set)
        else:
            result = None
    except Exception as error:
        traceback.print_exc()
        reason, message = _explained(error)
        again = {"again": dict(error.settings)} if isinstance(error, TrainAgainError) else {}
        say("failed", reason=reason, message=message[:LONGEST_MESSAGE], **again)
        return 1
    if result is None:
        say("stopped")
    else:
        say("done", result=result)
    return 0


def _take_stdout() -> Say:
    """Keep standard output for events alone: what anybody else prints, at whatever level, goes to standard error.

    Worker processes that libraries fork do not keep it: its end means the end of this process.
    """
    number = os.dup(1)
    os.dup2(2, 1)
    os.register_at_fork(after_in_child=lambda: os.close(number))

    def say(event: str, **facts: Any) -> None:
        line = memoryview(json.dumps({"event": event, **facts}).encode() + b"\n")
        while line:
            line = line[os.write(number, line) :]

    return say


def _end_as(last: Mapping[str, Any] | int, say: Say) -> int:
    """End as several processes did. Returns the exit status, or does not return where a signal ended one of them."""
    if isinstance(last, int):
        if last < 0:
            with suppress(OSError):  # nobody can handle SIGKILL
                signal.signal(-last, signal.SIG_DFL)
            os.kill(os.getpid(), -last)
        return last
    say(**last)
    return 1 if last["event"] == "failed" else 0


def _leave_network(job: Job, meeting: str | None, say: Say, stop: Stop) -> str | None:
    """Leave it, once there is a connection to each process that trains with this one. None: stopped before that."""
    if not (meeting and isinstance(job, TrainJob)):
        return leave_network()
    from daemon.asr import ranks

    def heard(here: int, of: int) -> None:
        say("progress", phase="waiting for machines", step=here, steps=of)

    try:
        connected = ranks.join(job.settings.get("device", "auto"), meeting, stop, heard)
    except ranks.StoppedError:
        return None
    left = leave_network() if connected else OFFLINE_ONLY
    return OFFLINE_ONLY if meeting.startswith("tcp:") else left  # what listens goes on listening


def _do(job: Job, say: Say, stop: Stop) -> Mapping[str, Any] | None:
    return _train(job, say, stop) if isinstance(job, TrainJob) else _evaluate(job, say, stop)


def _train(job: TrainJob, say: Say, stop: Stop) -> Mapping[str, Any] | None:
    """What the training came to; None if it was stopped."""
    from daemon.asr import families

    result = families.train(
        job.family,
        job.settings,
        job.data,
        job.out,
        report=lambda progress: say("progress", **progress.facts()),
        stop=stop,
        resume=job.resume,
    )
    return None if result.stopped else result.facts()


def _evaluate(job: EvaluateJob, say: Say, stop: Stop) -> Mapping[str, Any] | None:
    """How the two compare, with the evidence on disk; None if it was stopped."""
    from daemon.asr import families, judging
    from daemon.learning.audiofolder import held_out

    try:
        entries = held_out(job.data)
    except ValueError as error:
        raise _FailedError("data", str(error)) from error
    clips = [judging.HeldOut(e.clip_id, e.recording, e.kind, e.text, job.data / e.file) for e in entries]
    try:
        evidence = judging.compare(
            lambda: families.load(**job.live),
            lambda: families.load(**job.candidate),
            clips,
            against=job.against,
            confidence=job.confidence,
            anchor=_anchor(job.anchor) if job.anchor else (),
            report=lambda done, of: say("progress", phase="judging", step=done, steps=of),
            stop=stop,
        )
    except judging.StoppedError:
        return None
    except judging.CandidateFailedError as error:
        raise _FailedError("candidate", str(error)) from error
    except judging.ClipError as error:
        raise _FailedError(error.kind, str(error)) from error
    except ModelError as error:
        raise _FailedError("live", str(error)) from error
    found = evidence.to_json()
    write_whole(job.out, json.dumps(found, ensure_ascii=False, allow_nan=False, indent=1).encode())
    sync(job.out.parent)
    return {"comparison": found["comparison"]}


def _anchor(folder: Path) -> list[HeldOut]:
    from daemon.asr.judging import HeldOut

    try:
        # Spreadsheets put a mark before the first word.
        with (folder / "metadata.csv").open(encoding="utf-8-sig", newline="") as file:
            rows = [(row["file_name"], row["transcription"]) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise _FailedError(
            "anchor", f"The anchor set {folder} has no metadata.csv with file_name and transcription: mend [promotion]."
        ) from error
    return [HeldOut(name, name, "anchor", text, folder / name) for name, text in rows]


def _explained(error: Exception) -> tuple[str, str]:
    """A slug and a sentence. What nobody foresaw is named by its kind alone; the log has the rest."""
    text = str(error)
    if isinstance(error, _FailedError | TrainingError):
        return error.reason, text
    if out_of_memory(error):
        return "out-of-memory", "Memory ran out: choose a smaller batch_size, or a smaller model."
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "no space left" in text.lower():
        return "disk-full", "The disk is full: make room where the state directory is."
    if of_the_machine(error):
        what = getattr(error, "strerror", None) or type(error).__name__
        return "machine", f"The machine fails ({what}): its log says where."
    if isinstance(error, ModelError):
        return "model", text
    return "crashed", f"It ended with an unforeseen {type(error).__name__}: its log says where."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
