"""`ambara train` as a process of its own: a small Whisper that really learns, interruptions, refusals, the hub."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from daemon_process import ambara as with_project
from hub_server import hub_server

from daemon.asr.whisper.config import TrainingSettings
from daemon.cli.train_checks import check_data, check_output
from daemon.cli.train_job import Job
from daemon.cli.train_signals import Stop, heeded
from daemon.cli.train_view import shown
from daemon.errors import ConfigurationError
from daemon.local.speech import Utterance, speak_corpus, wav_bytes
from daemon.local.tiny import BASE

TOKEN = "hf_SwordfishOfNoaSwordfishOfNoa"
MINE = "noa/whisper-mg"
GUARD_S = 120
LEARN = ("--base-model", str(BASE), "--epochs", "10", "--batch-size", "4", "--lr", "2e-3", "--device", "cpu")
MAIN = """
import sys
from daemon.cli import app
code = app.main()
print("LOADED", sorted({"supabase", "realtime", "apscheduler", "psycopg"} & set(sys.modules)))
sys.exit(code)
"""


def environment(**more: str) -> dict[str, str]:
    """No project, no token, no network."""
    bare = {n: v for n, v in os.environ.items() if not n.startswith(("SUPABASE_", "AMBARA_", "HF_"))}
    return bare | {"COLUMNS": "120", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | more


def ambara(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "train", *arguments],
        env=environment(PYTHONPATH=str(Path(__file__).parents[1]), **env),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=GUARD_S,
    )
    assert "LOADED []" in done.stdout
    assert "Traceback" not in done.stderr
    return done


def refused(done: subprocess.CompletedProcess[str], code: int = 78) -> str:
    """What it said when it ended with one sentence."""
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == 1
    return done.stderr.removeprefix("ambara: ").strip()


def write_side(folder: Path, clips: Sequence[Utterance]) -> None:
    (folder / "clips").mkdir(parents=True)
    rows = [("file_name", "transcription")]
    for number, clip in enumerate(clips):
        (folder / f"clips/{number}.wav").write_bytes(wav_bytes(clip.audio))
        rows.append((f"clips/{number}.wav", clip.text))
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips = speak_corpus("B", 40, seed=11)
    folder = tmp_path_factory.mktemp("train") / "data"
    write_side(folder / "train", clips[:30])
    write_side(folder / "test", clips[30:])
    return folder


@pytest.fixture
def data(spoken: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(spoken, tmp_path / "data")


def test_it_learns_says_how_much_and_a_failed_push_loses_nothing(data: Path, tmp_path: Path) -> None:
    command = ("-d", "data", "-o", "models/mg 2", *LEARN, "--epochs", "20", "--push-to-hub", MINE)
    out = tmp_path / "models" / "mg 2"
    (data / "train/clips/3.wav").unlink()
    (data / "test/clips/0.wav").write_bytes(b"RIFF")
    with hub_server(noa=TOKEN) as hub:
        reach = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        reach["HF_HOME"] = str(tmp_path / "hf")
        hub.answer = lambda asked: (412, "") if asked.endswith("commit/main") else None
        first = ambara(tmp_path, *command, **reach)
        assert first.returncode == 1
        assert f"The model is safe in {Path('models/mg 2/model')}." in first.stderr
        assert f"hf upload {MINE} 'models/mg 2/model' ." in first.stderr
        assert "--resume" in first.stderr
        assert hub.repos[MINE].private
        assert hub.repos[MINE].files == {}
        weights = (out / "model/model.safetensors").read_bytes()
        assert weights != (BASE / "model.safetensors").read_bytes()

        hub.answer = lambda _: None
        again = ambara(tmp_path, *command, "--resume", **reach)
        assert (again.returncode, again.stderr) == (0, "")
        assert hub.repos[MINE].files["model.safetensors"] == weights
        card = hub.repos[MINE].files["README.md"].decode()
    assert TOKEN not in first.stdout + first.stderr + again.stdout

    rates = json.loads((out / "rates.json").read_text())
    assert rates["after"]["wer"] < rates["before"]["wer"] - 0.02
    assert (rates["clips"], rates["left_out"]) == (9, {"audio-not-audio": 1})
    for done in (first, again):
        shown = re.search(r"word error rate, normalised │ (\S+)% +│ (\S+)%", done.stdout)
        assert shown
        assert [float(each) for each in shown.groups()] == [
            round(rates[side]["wer"] * 100, 1) for side in ("before", "after")
        ]
        assert "29 clips" in done.stdout
        assert "Left out of train: 1 whose audio file is missing." in done.stdout
        assert "Left out of test: 1 whose file is no sound file." in done.stdout
        assert "ambara re-draft -m 'models/mg 2/model'" in done.stdout
    assert "hearing test: 18 of 18" in first.stdout
    lines = re.findall(r"^training: (\d+) of \1, loss \d\.\d{3}", first.stdout, re.MULTILINE)
    assert len(lines) == 1, "in a pipe, lines instead of a bar"
    assert "hearing test" not in again.stdout  # it was known
    assert f"{rates['before']['wer']:.1%} before, {rates['after']['wer']:.1%} after" in card
    assert 'language: ["mg"]' in card
    assert "29 clips" in card

    assert "holds a model already" in refused(ambara(tmp_path, *command[:-2]))
    assert (out / "model/model.safetensors").read_bytes() == weights


def test_sigterm_leaves_a_checkpoint_and_resume_goes_on(spoken: Path, tmp_path: Path) -> None:
    command = ("-d", str(spoken), "-o", "out", *LEARN, "--epochs", "15")
    child = subprocess.Popen(
        [sys.executable, "-m", "daemon", "train", *command],
        env=environment(PYTHONPATH=str(Path(__file__).parents[1]), FORCE_COLOR="1", TTY_COMPATIBLE="1"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert child.stdout
        seen = b""
        while not re.search(rb" [1-9]\d*/60\b[^\r\n]*\d (s|min) left", seen):  # a step is done, what is left is known
            more = os.read(child.stdout.fileno(), 65536)
            assert more, seen
            seen += more
        child.send_signal(signal.SIGTERM)
        rest, errors = child.communicate(timeout=GUARD_S)
    finally:
        child.kill()
    assert child.returncode == 128 + signal.SIGTERM
    assert b"stopping after this step" in errors
    said = re.search(rb"Stopped after step (\d+), with a checkpoint. The same command with --resume", rest)
    assert said
    step = int(said[1])
    assert (tmp_path / f"out/checkpoints/checkpoint-{step}/manifest.json").is_file()
    assert not (tmp_path / "out/model").exists()

    assert "was not finished" in refused(ambara(tmp_path, *command))
    done = ambara(tmp_path, *command, "--resume")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Trained 60 steps on 30 clips (1.0 minutes), going on from step {step}" in done.stdout
    assert (tmp_path / "out/model/model.safetensors").is_file()


def test_a_dry_run_writes_nothing(data: Path, tmp_path: Path) -> None:
    (data / "train/clips/0.wav").write_bytes(b"no sound")
    with (data / "train/metadata.csv").open("a", encoding="utf-8") as file:
        file.write("clips/1.wav,\r\nclips/1.wav,   \r\n../../secret.wav,words\r\n")
    shutil.rmtree(data / "test")
    before = {each: each.stat().st_mtime_ns for each in tmp_path.rglob("*")}
    done = ambara(tmp_path, "-d", "data", "-o", "new/out", *LEARN, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    shown = dict(line.split(None, 1) for line in done.stdout.splitlines() if "  " in line)
    assert shown["train"].startswith("29 clips, 0.9 minutes")
    assert "2 without text, 1 whose file is no sound file, 1 whose file name leads out of their run" in done.stdout
    assert shown["test"].startswith("no clip")
    assert shown["steps"].strip() == "40"
    assert shown["device"].startswith("cpu, float32")
    assert "GB free for new/out" in shown["disk"]
    assert {each: each.stat().st_mtime_ns for each in tmp_path.rglob("*")} == before


def test_a_model_that_cannot_be_compared_is_a_model_all_the_same(data: Path, tmp_path: Path) -> None:
    job = Job(data, tmp_path, {**asdict(TrainingSettings()), "base": "./gone"}, resume=False, repo=None)
    with shown() as show:
        said = job.measured(show, Stop())
        assert said == "The model could not be compared with its base: There is no model directory at gone."
        shutil.rmtree(data / "test")
        assert "nobody knows how good" in str(job.measured(show, Stop()))
    assert not (tmp_path / "rates.json").exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (shutil.rmtree, "There is no directory"),
        (lambda data: (data / "train/metadata.csv").unlink(), "There is no .*metadata.csv: `ambara export"),
        (lambda data: (data / "train/metadata.csv").write_text("file_name,text\na.wav,b\n"), "no column transcription"),
        (lambda data: (data / "train/metadata.csv").write_text("file_name,transcription\n"), "lists no clip: `ambara"),
        (lambda data: (data / "train/metadata.csv").write_bytes(b"file_name,transcription\n\xff,x\n"), "UTF-8"),
        (lambda data: (data / "test/metadata.csv").write_text("name\n"), "test/metadata.csv has no column file_name"),
    ],
)
def test_what_is_no_data_set(spoil: Any, said: str, data: Path) -> None:
    check_data(data)
    spoil(data)
    with pytest.raises(ConfigurationError, match=said) as caught:
        check_data(data)
    assert str(caught.value).count("\n") == 0


def test_where_a_model_can_go(tmp_path: Path) -> None:
    check_output(tmp_path / "a" / "b", resume=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for resume in (False, True):
        with pytest.raises(ConfigurationError, match="is a file"):
            check_output(tmp_path / "file" / "out", resume=resume)
    (tmp_path / "checkpoints").mkdir()  # a training that never came to a checkpoint
    check_output(tmp_path, resume=False)
    (tmp_path / "checkpoints" / "checkpoint-7").mkdir()
    with pytest.raises(ConfigurationError, match=r"not finished.*--resume"):
        check_output(tmp_path, resume=False)
    (tmp_path / "model").mkdir()
    with pytest.raises(ConfigurationError, match=r"a model already.*--resume"):
        check_output(tmp_path, resume=False)
    check_output(tmp_path, resume=True)


def test_refusals(spoken: Path, tmp_path: Path) -> None:
    where = ("-d", str(spoken), "-o", "out")
    assert "`ambara train -d DATA -o OUTPUT`" in refused(ambara(tmp_path))
    assert "`ambara train -d DATA -o OUTPUT`" in refused(ambara(tmp_path, "-d", str(spoken)))
    assert "give it alone" in refused(ambara(tmp_path, "--now", "--dry-run"))
    assert "Set SUPABASE_URL" in refused(ambara(tmp_path, "--now"))
    assert "no directory nowhere" in refused(ambara(tmp_path, "-d", "nowhere", "-o", "out"))
    assert "no model directory at gone" in refused(ambara(tmp_path, *where, "--base-model", "./gone"))
    assert "HF_HUB_OFFLINE" in refused(ambara(tmp_path, *where, "--push-to-hub", MINE, HF_TOKEN=TOKEN))
    for wrong in (("--lr", "0"), ("--epochs", "-1"), ("--batch-size", "0"), ("--device", "abacus")):
        assert ambara(tmp_path, *where, *wrong).returncode == 2
    assert not (tmp_path / "out").exists()


def test_a_wrong_token_is_found_before_the_training(spoken: Path, tmp_path: Path) -> None:
    with hub_server(noa=TOKEN) as hub:
        reach = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_wrongwrongwrongwrongwrong", "HF_HUB_OFFLINE": "0"}
        done = ambara(tmp_path, "-d", str(spoken), "-o", "out", *LEARN, "--push-to-hub", MINE, **reach)
        assert "refuses the token" in refused(done)
        assert hub.repos == {}
    assert not (tmp_path / "out").exists()


def test_the_first_signal_is_a_wish_and_the_second_is_not(request: pytest.FixtureRequest) -> None:
    # In a shell's background it is ignored.
    request.addfinalizer(partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(number)
        with heeded() as stop:
            assert not stop()
            signal.raise_signal(number)
            assert stop()
            assert stop.code == 128 + number
            assert signal.getsignal(number) == before
        assert signal.getsignal(number) == before
    with heeded():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with heeded() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop()
    finally:
        signal.signal(signal.SIGINT, before)


CORRECTED = """
with r as (insert into runs (label) values ('r') returning id)
insert into clips (run_id, file_name, source_file, status, corrected_transcription, duration_sec)
select id, n::text, 'tape ' || n %% %s, 'corrected', 'words ' || n, 6 from r, generate_series(1, %s) n
"""
UNDER_WAY = """
with v as (
  insert into model_versions (name, fingerprint, kind, stage) values ('t', 'u', 'trained', 'training') returning id
)
insert into training_runs (version_id, status, worker, lease_until)
select id, 'active', 'host-7', now() + interval '1 min' from v returning id
"""


def test_now(db: psycopg.Connection[tuple[Any, ...]], clean_stack: Any, tmp_path: Path) -> None:
    (tmp_path / "ambara.toml").write_text("[training]\nenabled = true\n")

    def now() -> str:
        done = with_project(clean_stack, tmp_path, "train", "--now")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count(".\n") == 1
        return done.stdout.strip()

    assert now() == "Training is asked for, and cannot begin yet: nobody has corrected a clip yet."
    assert db.execute("select count(*) from training_requests").fetchone() == (1,)
    db.execute(CORRECTED, [2, 3])
    db.execute("insert into training_recordings (recording, side) values ('tape 0', 'held-out'), ('tape 1', 'train')")
    assert "cannot begin yet: no daemon is running" in now()
    db.execute("select ambara_beat('host-1', '{}')")
    # Two of three corrections, where a run would begin by itself with fifty.
    assert now() == (
        "Training is asked for: within half a minute a daemon begins a run with 2 new corrections (0.2 minutes)."
    )
    run = db.execute(UNDER_WAY).fetchone()
    assert run
    assert f"cannot begin yet: run {run[0]} is under way on host-7" in now()
    db.execute("update training_runs set lease_until = now() - interval '1 s'")
    assert now() == f"Training is asked for: first, a daemon goes on with run {run[0]}, which lost its worker."


def test_a_run_that_began_at_once_is_told(tmp_path: Path) -> None:
    from daemon.cli.train_now import outcome
    from daemon.config import load
    from handlers.snapshot import ActiveRun, Learning, Training

    settings = load(None, {"SUPABASE_URL": "http://127.0.0.1:1", "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_x"})
    training = Training(new_clips=0, new_minutes=0, trained_clips=9, trained_minutes=1, recordings=2, held_out=1)
    begun = replace(training, active=ActiveRun(run=4, worker="host-1", abandoned=False))
    learning = Learning(training=begun, candidate=None, hour=12)
    assert outcome(settings, learning, []) == "Run 4 has begun on host-1."
