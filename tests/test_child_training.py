"""The real child at its real work: it trains, is stopped or killed, goes on, and compares."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from child_bench import Bench, children, evaluate_job, open_files, the_child, train_job, until

from daemon.asr import families
from daemon.learning import audiofolder, pcm
from daemon.learning.ports import ChildDone, ChildFailed, ChildStopped, Sample, Side
from daemon.learning.rows import comparison
from daemon.local.speech import speak_corpus

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at processes through /proc")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frozen data set: twelve clips to learn from, six of two other recordings to judge by."""
    folder = tmp_path_factory.mktemp("frozen") / "data"
    audiofolder.prepare(folder)
    entries = []
    for at, clip in enumerate(speak_corpus("A", 18, seed=77)):
        side = Side.TRAIN if at < 12 else Side.HELD_OUT
        sample = Sample(
            f"c{at}", "r1", f"{at}.wav", f"tape {at % 2}", side, "extraction", clip.text, "", None, "sermon"
        )
        samples = pcm.to_pcm(clip.audio)
        entries.append(audiofolder.entry(sample, clip.text, samples))
        pcm.write_clip(folder / entries[-1].file, samples)
    audiofolder.write_set(folder, entries, left_out={}, refused={}, notes={})
    return folder


@pytest.fixture(autouse=True)
async def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """After each test: no zombie, no process that still runs, no open file more than before."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    await (await asyncio.create_subprocess_exec("true")).wait()  # whatever is opened once for all is open now
    before, files = children(os.getpid()), open_files()
    yield
    await asyncio.sleep(0)  # for the transports that close when they are next asked
    assert children(os.getpid()) == before
    assert open_files() <= files


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_a_training_from_its_job_to_its_model(bench: Bench, data: Path, tmp_path: Path) -> None:
    end = await bench.run(train_job(data, tmp_path))
    assert isinstance(end, ChildDone), bench.log.read_text()
    assert end.result["stopped"] is False
    assert end.result["clips"] == 12
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert bench.heard[0].keys() == {"network"}
    assert bench.heard[0]["network"] in ("none", "offline-only")
    assert bench.steps()[-1] == end.result["steps"]
    assert (tmp_path / "model" / "model.safetensors").stat().st_mode & 0o077 == 0, "others can read it"


async def test_the_windows_that_a_model_learns_in_are_those_it_is_judged_and_served_in(
    bench: Bench, data: Path, tmp_path: Path
) -> None:
    """They are published beside the weights, count in the fingerprint, and stand in the evidence."""
    assert isinstance(await bench.run(train_job(data, tmp_path, windows="right-sized")), ChildDone), (
        bench.log.read_text()
    )
    made = {"model": str(tmp_path / "model"), "device": "cpu"}
    end = await bench.run(evaluate_job(data, tmp_path, candidate={"family": "whisper", "options": made}))
    assert isinstance(end, ChildDone), bench.log.read_text()
    models = json.loads((tmp_path / "evidence.json").read_text())["models"]
    serving = families.load("whisper", made).describe()
    told = ("windows", "engine", "dtype", "fingerprint")
    assert {name: models["candidate"][name] for name in told} == {name: serving[name] for name in told}
    assert (models["live"]["windows"], serving["windows"]) == ("3 s", "1 to 3 s")
    (tmp_path / "model" / "windows.json").unlink()
    assert families.fingerprint("whisper", made) != serving["fingerprint"]


async def test_a_training_that_is_asked_to_stop_goes_on_at_the_same_step(
    bench: Bench, data: Path, tmp_path: Path
) -> None:
    """Cancelled in the middle: it leaves a checkpoint, and the next one takes it up where it was."""
    job = train_job(data, tmp_path, epochs=200)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bench.run(job))
        await until(lambda: len(bench.steps()) > 3)
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    checkpoint = max(int(path.name.rpartition("-")[2]) for path in (tmp_path / "checkpoints").glob("checkpoint-*"))
    assert checkpoint >= 3
    before = len(bench.heard)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bench.run(job))
        await until(lambda: any(progress.get("phase") == "training" for progress in bench.heard[before:]))
        pid = the_child()
        for _ in range(3):  # the second and the third fall into the writing of the checkpoint
            os.kill(pid, signal.SIGTERM)
            await asyncio.sleep(0.05)
    assert task.result() == ChildStopped(), bench.log.read_text()
    resumed = next(progress["step"] for progress in bench.heard[before:] if progress.get("phase") == "training")
    assert resumed == checkpoint


async def test_a_training_that_is_killed_is_taken_up_again(bench: Bench, data: Path, tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bench.run(train_job(data, tmp_path)))
        await until(lambda: len(bench.steps()) > 0)
        pid = the_child()
        os.kill(pid, signal.SIGKILL)
    end = task.result()
    assert isinstance(end, ChildFailed)
    assert end.reason == "killed"
    assert "memory" in end.message
    assert isinstance(await bench.run(train_job(data, tmp_path)), ChildDone)


async def test_a_comparison_leaves_its_evidence(bench: Bench, data: Path, tmp_path: Path) -> None:
    anchor = tmp_path / "anchor"
    anchor.mkdir()
    held_out = audiofolder.held_out(data)
    with (anchor / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("file_name", "transcription"))
        for entry in held_out[:2]:
            shutil.copy(data / entry.file, anchor / f"{entry.clip_id}.wav")
            rows.writerow((f"{entry.clip_id}.wav", entry.text))
    end = await bench.run(evaluate_job(data, tmp_path, anchor=anchor))
    assert isinstance(end, ChildDone), bench.log.read_text()
    found = comparison(end.result["comparison"])
    assert found
    assert (found.against, found.clips, found.recordings, found.confidence) == (3, 6, 2, 0.9)
    assert found.live_wer == found.candidate_wer
    evidence = json.loads((tmp_path / "evidence.json").read_text())
    assert evidence["comparison"] == end.result["comparison"]
    assert [clip["clip_id"] for clip in evidence["clips"]] == [entry.clip_id for entry in held_out]
    assert [clip["clip_id"] for clip in evidence["anchor"]] == [f"{entry.clip_id}.wav" for entry in held_out[:2]]
    assert bench.heard[-1]["step"] == bench.heard[-1]["steps"]


async def test_a_comparison_that_cannot_be_made_says_whose_fault_it_is(
    bench: Bench, data: Path, tmp_path: Path
) -> None:
    gone = {"family": "whisper", "options": {"model": str(tmp_path / "gone"), "device": "cpu"}}
    faults: dict[str, dict[str, Any]] = {
        "candidate": {"candidate": gone},
        "live": {"live": gone, "candidate": gone},
        "data": {"data": tmp_path / "nowhere"},
        "anchor": {"anchor": tmp_path / "nowhere"},
    }
    for reason, changes in faults.items():
        end = await bench.run(evaluate_job(data, tmp_path, **changes))
        assert isinstance(end, ChildFailed)
        assert end.reason == reason
        assert end.message.endswith(".")
    assert not (tmp_path / "evidence.json").exists()
