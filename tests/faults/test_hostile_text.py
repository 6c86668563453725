"""Words, names and labels that are not meant for people: a terminal and a table get them as text."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from daemon_process import ambara, daemon_process
from fault_record import Fault
from witness import until

from daemon.local.speech import noise, wav_bytes
from daemon.local.stack import LocalStack

HOSTILE = {
    "markup": "<script>alert('izaho')</script> <b onmouseover=x>&amp;</b>",
    "rich's markup": "[bold red]mena[/] [link=file:///etc/passwd]eto[/link] [/nowhere]",
    "clear the screen": "aho \x1b[2J\x1b[H\x1b]0;title\x07 lasa",
    "one-byte sequences": "aho \x9b31m \x90q\x9c \x84 lasa",
    "backspaces": "tsara\x08\x08\x08\x08\x08ratsy \x7f\x0b\x0c\x0e",
    "right to left": "\u202eana\u202c \u2066misy\u2069 \u200f\ufeffaho",
    "lines that look like others": 'aho\n{"event": "promoted", "level": "info"}\r\nambara: done\r\x85izy\u2028izao',
    "a formula": '=cmd|"/c calc"!A1',
    "a table": 'clips/0.wav,"a\n""b"",\'c\'\n-1,+1,@x,;,\t',
    "a split": '[{"text": "aho", "start": 0, "end": 1}, {"paragraphs": null}]',
    "a format": "%s %n {0} {key} ${HOME} `id` $(id)",
    "marks on marks": "a" + "\u0301" * 2_000,
    "one long word": "a" * 7_000,
    "beyond the first plane": "𝔞𝔥𝔬 👩‍👩‍👧‍👦 \U000e0041 \uffff",
}
HUGE = "lava be " * 131_072
"""A mebibyte."""


def obeyed(text: str) -> list[str]:
    """The characters of a command's output that a terminal would do something for."""
    return sorted(
        {f"U+{ord(c):04X}" for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")}
    )


@pytest.mark.fault("H01", "hostile-text")
async def test_words_for_machines(fault: Fault, local_stack: LocalStack, tmp_path: Path) -> None:
    """As corrections, drafts, labels, sources, names of versions, reasons; seen by every command, log and table."""
    texts = {**HOSTILE, "a mebibyte": HUGE}
    fault.injected(f"{len(texts)} hostile texts in every column that people and models fill")
    local_stack.ensure()
    local_stack.truncate()
    run, audio = str(uuid4()), tmp_path / "run"
    with psycopg.connect(local_stack.db_url, autocommit=True) as db:
        nasty = "".join(text for name, text in HOSTILE.items() if len(text) < 200)
        db.execute("insert into runs (id, label) values (%s, %s)", [run, "nasty" + nasty])
        clips = {}
        for number, (name, text) in enumerate(texts.items()):
            file = f"clips/{number}.wav"
            (audio / "clips").mkdir(parents=True, exist_ok=True)
            (audio / file).write_bytes(wav_bytes(noise(0.5, seed=number)))
            row = db.execute(
                "insert into clips (run_id, file_name, source_file, duration_sec, draft_transcription, status, "
                "corrected_transcription) values (%s, %s, %s, 0.5, %s, 'corrected', %s) returning id::text",
                [run, file, nasty, text, text],
            ).fetchone()
            assert row
            clips[name] = row[0]
        sections = {"audio": {"run_dirs": {run: audio}}, "drafting": {"sweep_seconds": 1}, "log": {"level": "debug"}}
        for form in ("console", "json")[fault.size(full=0, short=1) :]:
            folder = tmp_path / form
            db.execute(
                "insert into clips (run_id, file_name, draft_transcription, duration_sec) values (%s, %s, %s, 1)",
                [run, f"clips/{form}/{nasty}", nasty],
            )
            sections["log"]["format"] = form
            with daemon_process(local_stack, folder, ready=False, **sections) as daemon:
                await until(lambda: "clips not drafted" in daemon.output, "the clip was looked at")
                fault.holds("log lines are what the daemon says", obeyed(daemon.output))
                assert daemon.stop() == 0
        _put(db, list(clips.values()), list(texts.values()), nasty)

        loud, failed = [], []
        shown = list(clips.values())[: fault.size(full=len(clips), short=0)]
        commands = [["status"], ["models", "show", "1"], ["drafts", clips["one-byte sequences"]]]
        commands += [["drafts", clip] for clip in shown]
        commands += (
            [["why"], ["models", "list"], ["export", "--label", "nasty" + nasty, "-o", "again"]] if shown else []
        )
        commands += [["export", "--run", run, "-o", "data"]]
        folder = tmp_path / "json"
        for command in commands:
            done = ambara(local_stack, folder, *command)
            loud += [(command[0], told) for told in [obeyed(done.stdout + done.stderr)] if told]
            failed += [(command, done.stderr[-500:])] if done.returncode or "Traceback" in done.stderr else []
        fault.holds("nothing crashes", failed)
        fault.holds("0 raw sequences reach the terminal", loud)

        odd = []
        for command in (["models", "list"], ["drafts", clips["one-byte sequences"]]):
            done = ambara(local_stack, folder, *command, "--json")
            json.loads(done.stdout)
            odd += [(command[0], told) for told in [obeyed(done.stdout.replace("\x7f", ""))] if told]
        fault.holds("0 raw sequences in JSON", odd)

        table: dict[str, str] = {}
        for side in ("train", "test"):
            if (path := folder / "data" / side / "metadata.csv").exists():
                with path.open(encoding="utf-8", newline="") as file:
                    table |= {row["file_name"]: row["transcription"] for row in csv.DictReader(file)}
        expected = {f"clips/{clip}.wav": texts[name].strip() for name, clip in clips.items() if name != "a mebibyte"}
        fault.holds("metadata.csv is what was saved", [name for name in expected if table.get(name) != expected[name]])
        fault.holds("and nothing else", table.keys() - expected.keys())
        stored = dict(db.execute("select id::text, corrected_transcription from clips").fetchall())
        fault.holds("I2 people's words", [name for name, clip in clips.items() if stored[clip] != texts[name]])


def _put(db: psycopg.Connection[Any], clips: list[str], texts: list[str], nasty: str) -> None:
    """What a model said, and what is told of versions and failures, as if the machine had been led astray."""
    db.execute(
        "insert into drafts (clip_id, version_id, text, confidence, flags, worker) "
        "select c::uuid, (select min(id) from model_versions), t, -0.1, array[%s], %s "
        "from unnest(%s::text[], %s::text[]) as of(c, t)",
        [nasty, nasty, clips, texts],
    )
    db.execute("update model_versions set name = %s, reason = %s", [nasty, nasty])
    db.execute("update draft_state set message = %s where reason is not null", [nasty])


LOG = """
import json, logging, sys
from daemon import logs
logs.setup("debug", sys.argv[1], [], env={"NO_COLOR": "1"})
import structlog
for text in json.load(sys.stdin):
    structlog.get_logger().info("said", text=text, inside=[{"text": text}])
    structlog.get_logger().info(text)
    logging.getLogger("another").warning("%s", text)
    try:
        raise ValueError(text)
    except ValueError:
        structlog.get_logger().exception("failed")
"""


@pytest.mark.fault("H01", "hostile-logs")
@pytest.mark.parametrize("form", ["json", "console"])
def test_words_for_machines_in_a_log(fault: Fault, form: str) -> None:
    """As a value, as the event, as another library's message, as an error's text."""
    fault.injected(f"{len(HOSTILE)} hostile texts in four places of a log line ({form})")
    texts = list(HOSTILE.values())
    done = subprocess.run(
        [sys.executable, "-c", LOG, form],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    fault.holds("0 raw sequences in a log", obeyed(done.stdout.replace("\t", "") + done.stderr))
    if form == "json":
        lines = [json.loads(line) for line in done.stdout.split("\n") if line]
        fault.holds("one line each", [] if len(lines) == 4 * len(texts) else [len(lines)])
        said = [line["text"] for line in lines if line["event"] == "said"]
        fault.holds("values are kept", [text for text, other in zip(texts, said, strict=True) if text != other])
