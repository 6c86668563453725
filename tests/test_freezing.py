"""Rows and files to a data set that is whole or not there: bad clips, interruptions, outages."""

from __future__ import annotations

import asyncio
import csv
import errno
import hashlib
import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from daemon.asr.transcriber import SAMPLE_RATE, Waveform
from daemon.audio import AudioReader, FolderAudio, MissingAudio
from daemon.decode import Decoder
from daemon.errors import PermanentError, TemporaryError
from daemon.learning import audiofolder, durable, pcm
from daemon.learning.audiofolder import Amount, held_out, load_manifest
from daemon.learning.freezing import FETCHES, TRIES, freeze
from daemon.learning.ports import Sample, Side
from daemon.local.speech import noise, silence, wav_bytes

Read = Callable[[str, str], Awaitable[Waveform]]
TEST, TRAIN = Side.HELD_OUT, Side.TRAIN


def sample(clip: str, side: Side, **changes: Any) -> Sample:
    """A corrected clip of a run `r1`; each side has one recording."""
    text = f"ny teny voalohany amin'ny {clip}"
    plain = Sample(
        clip_id=clip,
        run_id="r1",
        file_name=f"clips/{clip}.wav",
        recording=f"tape of {side}",
        side=side,
        kind="extraction",
        text=text,
        text_md5=hashlib.md5(text.encode()).hexdigest(),
        duration_s=None,
        label="sermon",
    )
    return replace(plain, **changes)


def wave(name: str) -> Waveform:
    """A quarter of a second of noise, another one for each name."""
    return noise(0.25, seed=int.from_bytes(name.encode()[-6:], "big"))


def many(count: int) -> list[Sample]:
    return [sample(f"c{i}", TEST if i % 5 == 0 else TRAIN) for i in range(count)]


async def from_memory(_run_id: str, file_name: str) -> Waveform:
    return wave(file_name)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def clips(folder: Path) -> set[str]:
    return {name for name in tree(folder) if name.endswith(".wav")}


def rows(folder: Path, side: str) -> dict[str, str]:
    with (folder / side / "metadata.csv").open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        assert reader.fieldnames == ["file_name", "transcription"]
        return {row["file_name"]: row["transcription"] for row in reader}


async def test_good_and_bad_clips_of_two_runs_with_the_same_file_names(tmp_path: Path) -> None:
    """Through the real decoder: the good ones are kept to the sample and the letter, the others have their reasons."""
    raw = np.arange(-4000, 4000, dtype=np.int16)
    loud = np.array([-32768, 32767, 0, 1, -1] * 100, dtype=np.int16)
    odd = ' "Inona, hoy izy?"\r\nNy valiny: \rtsia;\n ny teny\t\u2028farany '
    files: dict[str, Any] = {
        "r1/clips/clip_00001.wav": raw,
        "r2/clips/clip_00001.wav": loud,
        "r2/clips/held.wav": raw[::-1],
        "r1/clips/corrupt.wav": b"RIFF" + bytes(600),
        "r1/clips/empty.wav": b"",
        "r1/clips/silent.wav": silence(1.0),
        "r1/clips/long.wav": noise(30.1),
        "r1/clips/just.wav": noise(30.0),
        "secret.wav": raw,
    }
    for name, content in files.items():
        path = tmp_path / "audio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content.dtype == np.int16:
            soundfile.write(path, content, SAMPLE_RATE, subtype="PCM_16")
        else:
            path.write_bytes(wav_bytes(content))
    samples = [
        sample("one", TRAIN, file_name="clips/clip_00001.wav", text=odd),
        sample("two", TRAIN, file_name="clips/clip_00001.wav", run_id="r2", recording="r2", kind="reading"),
        sample("held", TEST, run_id="r2", text="  None  "),
        sample("corrupt", TRAIN),
        sample("empty", TEST),
        sample("silent", TRAIN),
        sample("long", TRAIN, duration_s=2.0),
        sample("just", TRAIN, duration_s=31.0),
        sample("gone", TRAIN),
        sample("climbs", TRAIN, file_name="../secret.wav"),
        sample("changed", TRAIN, text=None),
        sample("blank", TRAIN, text=" \u00a0\n"),
        sample("endless", TRAIN, text="teny " * 2000),
    ]
    heard: list[tuple[int, int]] = []
    source = FolderAudio({run: tmp_path / "audio" / run for run in ("r1", "r2")})
    async with AudioReader(source, Decoder()) as reader:
        frozen = await freeze(
            samples,
            reader.read,
            tmp_path / "data",
            left_out={"split-record": 3, "empty-text": 1},
            progress=lambda done, total: heard.append((done, total)),
        )

    assert frozen.refused == {
        "corrupt": "audio-not-audio",
        "empty": "audio-empty",
        "silent": "no-audio",
        "long": "too-long",
        "gone": "audio-missing",
        "climbs": "audio-path",
        "changed": "changed-since",
        "blank": "empty-text",
        "endless": "text-too-long",
    }
    assert frozen.left_out == {"split-record": 3, "empty-text": 2} | dict.fromkeys(
        set(frozen.refused.values()) - {"empty-text"}, 1
    )
    assert frozen.train == Amount(clips=3, seconds=30.531, recordings=2)
    assert frozen.held_out == Amount(clips=1, seconds=0.5, recordings=1)
    assert heard[-1] == (len(samples), len(samples))

    data = tmp_path / "data"
    assert rows(data, "train") == {
        "clips/one.wav": odd.strip(),
        "clips/two.wav": samples[1].text,
        "clips/just.wav": samples[7].text,
    }
    assert rows(data, "test") == {"clips/held.wav": "None"}
    assert clips(data) == {
        *(f"train/clips/{clip}.wav" for clip in ("one", "two", "just")),
        "test/clips/held.wav",
    }
    for clip, content in (("one", raw), ("two", loud)):
        path = data / "train" / "clips" / f"{clip}.wav"
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (SAMPLE_RATE, 1, "PCM_16")
        assert np.array_equal(soundfile.read(path, dtype="int16")[0], content)
        assert frozen.audio[clip] == hashlib.sha256(content.astype("<i2").tobytes()).hexdigest()

    assert load_manifest(data) == frozen
    (judge,) = held_out(data)
    assert (judge.clip_id, judge.text, judge.side, judge.run_id) == ("held", "None", TEST, "r2")
    assert (data / judge.file).is_file()
    listed = json.loads((data / "manifest.json").read_bytes())["clips"]
    assert {row["clip_id"]: row["kind"] for row in listed}["two"] == "reading"
    assert all(row["text_md5"] for row in listed)


def test_the_texts_survive_the_csv_reader_of_datasets(tmp_path: Path) -> None:
    """The one that the training reads with, told to take words for words."""
    texts = ['"Inona, hoy izy?"\nNy valiny', "None", "NA", "12", "a\rb", "=1+1", "é\u2028e", "'", '"', "Ô" * 300]
    samples = [sample(f"c{i}", TRAIN, text=text) for i, text in enumerate(texts)]
    asyncio.run(freeze([*samples, sample("h", TEST)], from_memory, tmp_path / "data"))
    from datasets import Features, Value, load_dataset

    loaded = load_dataset(
        "csv",
        data_files=str(tmp_path / "data" / "train" / "metadata.csv"),
        keep_default_na=False,
        features=Features({"file_name": Value("string"), "transcription": Value("string")}),
        cache_dir=str(tmp_path / "cache"),
    )["train"]
    assert dict(zip(loaded["file_name"], loaded["transcription"], strict=True)) == {
        f"clips/c{i}.wav": text for i, text in enumerate(texts)
    }


async def test_nothing_held_out_is_trained_on(tmp_path: Path) -> None:
    """The same sound under another name, the same words in other clothes: out of training, and only of training."""
    sounds = {"clips/copy.wav": "clips/h1.wav", "clips/h2.wav": "clips/h1.wav", "clips/b.wav": "clips/a.wav"}

    async def read(run_id: str, file_name: str) -> Waveform:
        return await from_memory(run_id, sounds.get(file_name, file_name))

    words = "iza no manan-tsofina hihaino aoka izy hihaino"
    samples = [
        sample("h1", TEST, text=words),
        sample("h2", TEST, text=words),
        sample("copy", TRAIN),
        sample("words", TRAIN, text=f"  {words.upper()}!"),
        sample("nearly", TRAIN, text=words.replace("aoka", "aoke")),
        sample("a", TRAIN),
        sample("b", TRAIN),
    ]
    frozen = await freeze(samples, read, tmp_path / "data", left_out={"too-long": 1})
    leaking = {"copy": "audio-in-held-out", "words": "text-in-held-out", "nearly": "text-in-held-out"}
    assert frozen.refused == leaking
    assert frozen.left_out == {"audio-in-held-out": 1, "text-in-held-out": 2, "too-long": 1}
    assert (frozen.train.clips, frozen.held_out.clips) == (2, 2)
    assert frozen.notes == {"same-audio-other-words": 2}
    assert {path.name for path in (tmp_path / "data" / "train" / "clips").iterdir()} == {"a.wav", "b.wav"}


@pytest.mark.parametrize(
    ("samples", "reason", "says"),
    [
        ([sample("a", TRAIN), sample("b", TEST, text=None)], "nothing-held-out", "1 changed, or no longer corrected"),
        ([sample("a", TEST), sample("b", TRAIN, text="")], "no-training-clip", "1 without text"),
        ([sample("a", TEST, text="na iza"), sample("b", TRAIN, text=None)], "no-training-clip", "1 changed"),
        ([], "no-training-clip", "No clip to train on is left: correct"),
    ],
)
async def test_a_set_without_one_of_its_sides(tmp_path: Path, samples: list[Sample], reason: str, says: str) -> None:
    """Refused with the reasons, unless the caller can use it; it never looks whole."""
    with pytest.raises(PermanentError) as refused:
        await freeze(samples, from_memory, tmp_path / "data")
    assert refused.value.reason == reason
    assert says in str(refused.value)
    assert load_manifest(tmp_path / "data") is None
    with pytest.raises(ValueError, match="no whole data set"):
        held_out(tmp_path / "data")
    frozen = await freeze(samples, from_memory, tmp_path / "data", both_sides=False)
    assert frozen.train.clips + frozen.held_out.clips == bool(samples)
    assert {"train/metadata.csv", "test/metadata.csv", "manifest.json"} <= tree(tmp_path / "data").keys()


async def test_every_interruption_leaves_a_folder_that_is_not_whole_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop after each number of written files in turn. What was written is not fetched again; the result is equal."""
    samples = many(6)
    await freeze(samples, from_memory, tmp_path / "undisturbed")
    wanted = tree(tmp_path / "undisturbed")
    turn = threading.Lock()
    for stop_after in range(len(wanted)):
        folder = tmp_path / f"stopped after {stop_after}"
        left = stop_after

        def write(path: Path, data: bytes) -> None:
            nonlocal left
            with turn:
                left -= 1
                full = left < 0
            if full:
                path.with_name(f"{path.name}.part").write_bytes(data[: len(data) // 2])
                raise OSError(errno.ENOSPC, "full")
            durable.write_whole(path, data)

        with monkeypatch.context() as patch:
            patch.setattr(pcm, "write_whole", write)
            patch.setattr(audiofolder, "write_whole", write)
            with pytest.raises(TemporaryError, match="make room") as stopped:
                await freeze(samples, from_memory, folder)
        assert stopped.value.reason == "disk-full"
        assert load_manifest(folder) is None
        there = len(clips(folder))
        assert there == min(stop_after, len(samples))

        fetched: list[str] = []

        async def read(run_id: str, file_name: str, fetched: list[str] = fetched) -> Waveform:
            fetched.append(file_name)
            return await from_memory(run_id, file_name)

        frozen = await freeze(samples, read, folder)
        assert len(fetched) == len(samples) - there
        assert frozen == load_manifest(folder)
        assert tree(folder) == wanted


async def test_a_cancelled_freeze_goes_on(tmp_path: Path) -> None:
    """As at the end of the daemon: what was there is not asked for again, and a whole set is not touched at all."""
    samples = many(40)
    fetched: list[str] = []
    halfway = asyncio.Event()

    async def read(run_id: str, file_name: str) -> Waveform:
        fetched.append(file_name)
        if len(fetched) > 20:
            halfway.set()
            await asyncio.Event().wait()
        return await from_memory(run_id, file_name)

    async with asyncio.TaskGroup() as tasks:
        freezing = tasks.create_task(freeze(samples, read, tmp_path / "data"))
        await halfway.wait()
        freezing.cancel()
    assert load_manifest(tmp_path / "data") is None
    there = len(clips(tmp_path / "data"))
    assert there >= 12

    fetched = []
    halfway = asyncio.Event()

    async def read_all(run_id: str, file_name: str) -> Waveform:
        fetched.append(file_name)
        return await from_memory(run_id, file_name)

    frozen = await freeze(samples, read_all, tmp_path / "data")
    assert len(fetched) == 40 - there
    assert frozen.train.clips + frozen.held_out.clips == 40
    before = tree(tmp_path / "data")
    fetched.clear()
    assert await freeze(many(3), read_all, tmp_path / "data") == frozen
    assert (fetched, tree(tmp_path / "data")) == ([], before)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda data: (data / "manifest.json").unlink(),
        lambda data: (data / "manifest.json").write_bytes((data / "manifest.json").read_bytes()[:-2]),
        lambda data: (data / "manifest.json").write_bytes(b"[]"),
        lambda data: (data / "manifest.json").write_bytes(b'{"format": 2}'),
        lambda data: (data / "train" / "metadata.csv").write_text("file_name,transcription\r\n"),
        lambda data: (data / "train" / "clips" / "c1.wav").unlink(),
        lambda data: (data / "test" / "clips" / "c0.wav").write_bytes(b"RIFF"),
    ],
)
async def test_a_damaged_set_is_not_whole_and_is_mended(tmp_path: Path, break_it: Callable[[Path], object]) -> None:
    data = tmp_path / "data"
    frozen = await freeze(many(6), from_memory, data)
    whole = tree(data)
    break_it(data)
    assert load_manifest(data) is None
    assert await freeze(many(6), from_memory, data) == frozen
    assert tree(data) == whole


async def test_no_more_than_eight_clips_are_in_memory(tmp_path: Path) -> None:
    held = most = 0

    async def read(run_id: str, file_name: str) -> Waveform:
        nonlocal held, most
        held += 1
        most = max(most, held)
        await asyncio.sleep(0.001)
        held -= 1
        return await from_memory(run_id, file_name)

    await freeze(many(60), read, tmp_path / "data")
    assert 1 < most <= FETCHES == 8


def away(*_: str) -> TemporaryError:
    return TemporaryError("Storage does not deliver the audio (ConnectError).", reason="storage-unavailable")


async def test_a_storage_that_is_away_is_tried_patiently_and_then_said(tmp_path: Path) -> None:
    """Not a clip is blamed for it. When it is back, freezing goes on."""
    asked: list[str] = []
    given: set[str] = set()
    back = False

    async def read(run_id: str, file_name: str) -> Waveform:
        asked.append(file_name)
        if len(set(asked)) > 10 and not back:
            raise away()
        given.add(file_name)
        return await from_memory(run_id, file_name)

    samples = many(200)
    with pytest.raises(TemporaryError, match="Storage does not deliver") as told:
        await freeze(samples, read, tmp_path / "data", pause_s=0.001)
    assert told.value.reason == "storage-unavailable"
    assert load_manifest(tmp_path / "data") is None
    # One that was given bears witness, and each of those who ask at a time may call it.
    assert {asked.count(name) for name in asked if name not in given} <= set(range(1, TRIES + 1))
    assert max(asked.count(name) for name in asked if name not in given) == TRIES
    assert len(set(asked)) <= 10 + 2 * FETCHES, "it did not ask for all the others, too"

    back = True
    asked.clear()
    frozen = await freeze(samples, read, tmp_path / "data")
    assert not frozen.refused
    assert len(asked) <= 190


@pytest.mark.parametrize("count", [2, 5, 40])
async def test_an_outage_at_the_last_clip_is_an_outage(tmp_path: Path, count: int) -> None:
    """Only few clips are left, so few fail in a row: a clip that could be read before shows that it is not them."""
    samples = many(count)

    async def read(run_id: str, file_name: str, asked: list[str] = []) -> Waveform:  # noqa: B006 - it remembers
        if asked or file_name == samples[-1].file_name:
            asked.append(file_name)
            raise away()
        return await from_memory(run_id, file_name)

    with pytest.raises(TemporaryError):
        await freeze(samples, read, tmp_path / "data", pause_s=0.001)
    assert load_manifest(tmp_path / "data") is None


async def test_nothing_can_be_read_at_all(tmp_path: Path) -> None:
    async def read(run_id: str, file_name: str) -> Waveform:
        raise away()

    for samples in (many(3), many(30)):
        with pytest.raises(TemporaryError):
            await freeze(samples, read, tmp_path / "data", pause_s=0.001)


@pytest.mark.parametrize("every", [10, 2])
async def test_clips_that_alone_cannot_be_read_are_left_out(tmp_path: Path, every: int) -> None:
    """Storage has trouble with some objects, be it every second one, and blips now and then: those are counted, all
    others frozen."""
    calls: dict[str, int] = {}
    samples = many(60)
    broken = {sample.clip_id for sample in samples[1::every]}

    async def read(run_id: str, file_name: str) -> Waveform:
        calls[file_name] = calls.get(file_name, 0) + 1
        if file_name[6:-4] in broken or calls[file_name] < int(file_name[7:-4]) % 4:
            raise away()
        if file_name == "clips/c0.wav" and calls[file_name] > 1:  # what was read before is gone meanwhile
            raise MissingAudio
        return await from_memory(run_id, file_name)

    frozen = await freeze(samples, read, tmp_path / "data", pause_s=0.001)
    assert frozen.refused == dict.fromkeys(broken, "storage-unavailable")
    assert frozen.train.clips + frozen.held_out.clips == 60 - len(broken)
    assert max(calls[f"clips/{clip}.wav"] for clip in broken) == TRIES + 1


async def test_a_clip_that_comes_at_the_last_chance_is_kept(tmp_path: Path) -> None:
    calls = 0

    async def read(run_id: str, file_name: str) -> Waveform:
        nonlocal calls
        if file_name == "clips/c1.wav" and (calls := calls + 1) <= TRIES:
            raise away()
        return await from_memory(run_id, file_name)

    samples = many(12)
    samples[1] = replace(samples[1], text=" tamin'ny farany \n")
    frozen = await freeze(samples, read, tmp_path / "data", pause_s=0.001)
    assert calls == TRIES + 1
    assert not frozen.refused
    assert rows(tmp_path / "data", "train")["clips/c1.wav"] == "tamin'ny farany"


async def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TemporaryError, match="cannot be written to") as told:
        await freeze(many(6), from_memory, tmp_path / "file" / "data")
    assert told.value.reason == "disk"
