"""Files made to break the reader: every one gets a reason, and nobody else waits or dies of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import psutil
import psycopg
import pytest
from daemon_process import DaemonProcess, daemon_process
from fault_record import Fault
from hostile_audio import HOSTILE, Memory, bomb, fuzzed, unusual
from hostile_secrets import leaks
from witness import Database, clip_rows, drafted_by_machine, insert_clips, scalar, until, waiting, wer

from daemon.audio import AudioReader, FolderAudio
from daemon.audio_reasons import REASONS
from daemon.decode import Decoder
from daemon.errors import AmbaraError
from daemon.local.speech import Utterance, speak_corpus, wav_bytes
from daemon.local.stack import LocalStack

MOST_MB = 300.0
VERDICT_S = 5.0
"""So much of a processor a verdict on a file may take."""
BEHIND_S = 60.0


def lay(run: Path, files: dict[str, bytes]) -> list[str]:
    """Put clips into a run directory."""
    names = [f"clips/{name}.wav" for name in files]
    for name, content in zip(names, files.values(), strict=True):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(content)
    return names


def verdicts(db: Database) -> dict[str, str]:
    """File name -> the reason why it is not drafted."""
    return dict(
        db.execute(
            "select c.file_name, s.reason from clips c join draft_state s on s.clip_id = c.id "
            "where s.reason is not null"
        ).fetchall()
    )


def spent_s(processes: Sequence[int]) -> float:
    """Seconds of a processor that they have had: the rest is not theirs. One that is gone counts as none."""
    times = [psutil.Process(pid).cpu_times() for pid in processes if psutil.pid_exists(pid)]
    return sum(each.user + each.system for each in times)


def family(daemon: DaemonProcess) -> list[int]:
    """The daemon and its decoder."""
    children = psutil.Process(daemon.child.pid).children(recursive=True)
    return [daemon.child.pid, *(child.pid for child in children)]


@pytest.mark.fault("F26", "bombs")
async def test_hostile_files_before_good_ones(fault: Fault, local_stack: LocalStack, tmp_path: Path) -> None:
    """One by one with a look at the clock, then all of them before clips that people wait for."""
    local_stack.ensure()
    local_stack.truncate()
    count, behind = fault.size(full=200, short=30), fault.size(full=50, short=20)
    spoken = speak_corpus("A", behind, seed=505)
    run, run_id = tmp_path / "run", str(uuid4())
    hostile = {name: make() for name, (make, _) in HOSTILE.items()}
    # 29 minutes within every limit: 640 MiB where it is read at once.
    patient = {"640 MiB of patience": bomb(48_000, 2)}
    odd = {f"fuzzed {number}": content for number, content in enumerate(fuzzed(fault.random, count))}
    lay(run, hostile | patient | odd | unusual(spoken[0]) | _good(spoken))
    fault.injected(f"12 hostile files and {count} with fuzzed headers, {behind} good clips behind them")
    sections = {"audio": {"run_dirs": {run_id: run}}, "drafting": {"sweep_seconds": 2, "batch_clips": 8}}
    with (
        psycopg.connect(local_stack.db_url, autocommit=True) as db,
        daemon_process(local_stack, tmp_path / "daemon", **sections) as daemon,
    ):
        warm = lay(run, {"warm": wav_bytes(spoken[0].audio)})
        insert_clips(db, run_id, warm)
        await until(lambda: drafted_by_machine(db), "one clip drafted: the decoder is there")
        processes = family(daemon)
        memory = Memory(*processes)

        slow, longest = [], 0.0
        for name in hostile:
            began = spent_s(processes)
            insert_clips(db, run_id, [f"clips/{name}.wav"])
            await until(lambda name=name: f"clips/{name}.wav" in verdicts(db), f"a verdict on {name}", pause_s=0.02)
            longest = max(longest, took := spent_s(processes) - began)
            slow += [(name, took)] if took > VERDICT_S else []
        fault.holds("each refused <= 5 s", slow)
        told = verdicts(db)
        expected = {f"clips/{name}.wav": reason for name, (_, reason) in HOSTILE.items()}
        fault.holds("a typed reason for each", expected.items() ^ told.items())
        fault.observe(f"slowest verdict: {longest:.1f} s of a processor, from the insert to the row")

        db.execute("delete from clips where file_name <> %s", warm)
        first = [*hostile, *patient, *odd]
        insert_clips(db, run_id, [f"clips/{name}.wav" for name in (*first, *unusual(spoken[0]))])
        db.execute("update clips set priority = 9")
        insert_clips(db, run_id, [f"clips/{name}.wav" for name in _good(spoken)])
        good = {f"clips/{name}.wav" for name in _good(spoken)}
        with fault.healing():
            await until(lambda: good <= _drafted_names(db), "the good clips drafted", guard_s=BEHIND_S)
        fault.holds("good ones behind <= 60 s", good - _drafted_names(db))
        await until(lambda: waiting(db) == 0, "nothing waits")
        fault.holds("0 crashes", [] if family(daemon) == processes else [processes, family(daemon)])
        grown = memory.grown_mb
        fault.observe(f"daemon and decoder at their highest: {grown:+.0f} MB")
        fault.holds("RSS < +300 MB", [grown] if grown > MOST_MB else [])

        told, drafted = verdicts(db), _drafted_names(db)
        fault.holds("only known reasons", set(told.values()) - REASONS.keys())
        nameless = {f"clips/{name}.wav" for name in first} - told.keys() - drafted
        fault.holds("a draft or a reason for each", nameless)
        rows = clip_rows(db)
        said = {f"clips/{name}.wav": spoken[0].text for name in unusual(spoken[0])}
        # The model knows 16 kHz alone: what was 8 kHz once has lost its consonants.
        heard = wer({name: text for name, text in said.items() if "8 kHz" not in name}, rows)
        fault.holds("unusual forms are heard", [heard] if heard > 0.25 or not said.keys() <= drafted else [])
        flags = scalar(db, "select flags from drafts d join clips c on c.id = clip_id where file_name ~ 'patience'")
        fault.holds("silence is flagged", [] if "silence" in flags else [flags])
        fault.holds(
            "I6 no key", leaks(local_stack.service_role_key, texts={"log": daemon.output}, pids=[daemon.child.pid])
        )
        fault.holds("I8 never ended", [] if daemon.running else [daemon.output])


def _good(spoken: Sequence[Utterance]) -> dict[str, bytes]:
    return {f"good {number}": wav_bytes(each.audio) for number, each in enumerate(spoken)}


def _drafted_names(db: Database) -> set[str]:
    rows = clip_rows(db)
    return {rows[clip]["file_name"] for clip in drafted_by_machine(db)}


@pytest.mark.fault("F26", "fuzzed-headers")
async def test_fuzzed_headers(fault: Fault, tmp_path: Path) -> None:
    """Through the reader as the daemon builds it; every answer is sound or a known reason."""
    count = fault.size(full=2_000, short=200)
    fault.injected(f"{count} sound files with fuzzed headers, one after the other")
    (tmp_path / "clips").mkdir()
    outcomes: dict[str, int] = {}
    unknown, slow = [], []
    longest = 0.0
    async with AudioReader(FolderAudio({"run": tmp_path}), decoder := Decoder()) as reader:
        lay(tmp_path, {"good": wav_bytes(speak_corpus("A", 1, seed=3)[0].audio)})
        before = await reader.read("run", "clips/good.wav")
        pids = decoder.pids
        memory = Memory(os.getpid(), *pids)
        for number, content in enumerate(fuzzed(fault.random, count)):
            lay(tmp_path, {"fuzzed": content})
            began = spent_s([os.getpid(), *pids])
            try:
                wave = await reader.read("run", "clips/fuzzed.wav")
                outcome = "sound"
                unknown += [] if len(wave) >= 160 and abs(wave).max() <= 1 else [(number, "not a waveform")]
            except AmbaraError as error:
                outcome = error.reason
                unknown += [] if outcome in REASONS else [(number, outcome)]
            longest = max(longest, took := spent_s([os.getpid(), *decoder.pids]) - began)
            slow += [(number, took)] if took > VERDICT_S else []
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        fault.holds("only known reasons", unknown)
        fault.holds("each refused <= 5 s", slow)
        crashed = outcomes.get("audio-crashes-decoder", 0) + outcomes.get("audio-timeout", 0)
        fault.holds("0 crashes", [outcomes] if crashed or decoder.pids != pids else [])
        fault.holds("RSS < +300 MB", [memory.grown_mb] if memory.grown_mb > MOST_MB else [])
        fault.holds("both kinds were met", [outcomes] if min(outcomes.get("sound", 0), len(outcomes) - 3) <= 0 else [])
        after = await reader.read("run", "clips/good.wav")
        fault.holds("a good clip reads as before", [] if (before == after).all() else ["differs"])
        grown = memory.grown_mb
    told = ", ".join(f"{reason} {times}" for reason, times in sorted(outcomes.items()))
    fault.observe(f"{told}; slowest {longest:.1f} s, {grown:+.0f} MB")
