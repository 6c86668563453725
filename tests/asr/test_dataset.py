"""From files that people keep to examples: what can be learned from, and why the rest cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from audiofolders import write_side, write_table

from daemon.asr.training import TrainingError
from daemon.asr.transcriber import SAMPLE_RATE
from daemon.asr.whisper.dataset import LeftOutError, Preparer, Row, read_audio, read_rows, spread
from daemon.asr.whisper.features import packed, prepare, unpack
from daemon.asr.whisper.majors import open_processor
from daemon.asr.whisper.windows import Windows
from daemon.local.speech import Utterance, noise, silence, wav_bytes
from daemon.local.tiny import BASE

WINDOW_S = 3.0
MG = {"language": "mg", "task": "transcribe"}
WINDOWS = Windows.right_sized(3.0)


@pytest.fixture(scope="module")
def processor() -> Any:
    return open_processor(BASE)


@pytest.fixture
def preparer(processor: Any) -> Preparer:
    return Preparer(processor, MG, room=64, windows=WINDOWS)


def whole(flat: Any, mels: int, frames: int) -> Any:
    """A spectrogram in its place in a batch."""
    place = np.full((mels, frames), np.nan, dtype=np.float32)
    unpack(flat, place)
    return place


def unusual(seconds: float, channels: int, rate: int) -> Callable[[Path], object]:
    return lambda file: soundfile.write(file, np.full((round(seconds * rate), channels), 0.1), rate)


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    texts = ['he said "tsara", twice', "null", "NA", "12", " roa ", "", "line\nbreak", "ô"]
    write_table(tmp_path, "train", ((f"{at}.wav", text) for at, text in enumerate(texts)))
    assert [row.text for row in read_rows(tmp_path, "train")] == texts
    assert read_rows(tmp_path, "train")[0].path == tmp_path / "train" / "0.wav"
    assert read_rows(tmp_path, "test") == []


def test_a_table_from_a_spreadsheet_is_read(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "metadata.csv").write_bytes("\ufeffnote,transcription,file_name\r\nx,ô,a.wav\r\n".encode())
    assert [(row.file_name, row.text) for row in read_rows(tmp_path, "train")] == [("a.wav", "ô")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"file_name,text\na,b\n", "has no column transcription"),
        (b"", "has no column file_name"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_what_is_no_such_table_gets_a_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "metadata.csv").write_bytes(content)
    with pytest.raises(TrainingError, match=said) as caught:
        read_rows(tmp_path, "train")
    assert caught.value.reason == "data"


@pytest.mark.parametrize("name", ["../secret.wav", "/etc/hostname", "a/../../b.wav", "", "a\0b.wav"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.wav").write_bytes(wav_bytes(noise(1)))
    write_table(tmp_path, "train", [])
    with (tmp_path / "train" / "metadata.csv").open("a", newline="") as file:
        file.write(f'"{name}",text\n')
    (row,) = read_rows(tmp_path, "train")
    with pytest.raises(LeftOutError, match="audio-path"):
        read_audio(row.path, WINDOW_S)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100])
def test_audio_of_any_usual_form_becomes_16_khz_mono(tmp_path: Path, kind: str, rate: int) -> None:
    """A tone in one of two channels: half as loud, as long, and of the same pitch."""
    tone = np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)
    soundfile.write(tmp_path / "clip", np.stack([tone, np.zeros_like(tone)], 1), rate, format=kind)
    wave = read_audio(tmp_path / "clip", WINDOW_S)
    assert wave.dtype == np.float32
    assert len(wave) == pytest.approx(2 * SAMPLE_RATE, abs=1)
    middle = wave[8_000:24_000]
    assert np.abs(np.fft.rfft(middle)).argmax() == 440
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("reason", "spoil"),
    [
        ("audio-missing", Path.exists),
        ("audio-missing", Path.mkdir),
        ("audio-empty", Path.touch),
        ("audio-not-audio", lambda file: file.write_bytes(b"RIFF" + bytes(5_000))),
        ("audio-not-audio", lambda file: file.write_bytes(wav_bytes(noise(1))[:30])),
        ("audio-channels", unusual(1, 9, SAMPLE_RATE)),
        ("audio-too-short", unusual(0.005, 1, SAMPLE_RATE)),
        ("audio-too-short", unusual(0, 1, SAMPLE_RATE)),
        ("too-long", unusual(3.001, 1, SAMPLE_RATE)),
        ("too-long", unusual(3.01, 2, 44_100)),
        ("too-long", unusual(100, 1, SAMPLE_RATE)),
        (
            "audio-nonfinite",
            lambda file: soundfile.write(file, np.full(8_000, np.nan), SAMPLE_RATE, format="WAV", subtype="FLOAT"),
        ),
    ],
)
def test_audio_that_cannot_be_learned_from(tmp_path: Path, reason: str, spoil: Callable[[Path], object]) -> None:
    spoil(tmp_path / "clip.wav")
    with pytest.raises(LeftOutError, match=f"^{reason}$"):
        read_audio(tmp_path / "clip.wav", WINDOW_S)


def test_a_file_that_is_cut_off_is_not_learned_from(tmp_path: Path) -> None:
    """The text of half a clip runs past its audio, and would teach to invent."""
    soundfile.write(tmp_path / "clip.flac", noise(2), SAMPLE_RATE)
    whole = (tmp_path / "clip.flac").read_bytes()
    (tmp_path / "clip.flac").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LeftOutError, match=r"^audio-(truncated|not-audio)$"):
        read_audio(tmp_path / "clip.flac", WINDOW_S)


def test_the_whole_window_is_not_too_long(tmp_path: Path) -> None:
    for rate in (SAMPLE_RATE, 22_050, 44_100):
        unusual(WINDOW_S, 1, rate)(tmp_path / "clip.wav")
        assert len(read_audio(tmp_path / "clip.wav", WINDOW_S)) <= WINDOW_S * SAMPLE_RATE


def test_a_text_that_fills_the_decoder_is_the_longest(preparer: Preparer, tmp_path: Path) -> None:
    """Bytes are this tokenizer's tokens; start, language, task, no timestamps and end are five more."""
    (tmp_path / "clip.wav").write_bytes(wav_bytes(noise(1)))
    labels, _ = preparer.check(Row("clip.wav", "a" * 59, tmp_path / "clip.wav"))
    assert len(labels) == 64
    with pytest.raises(LeftOutError, match="text-too-long"):
        preparer.check(Row("clip.wav", "a" * 60, tmp_path / "clip.wav"))


@pytest.mark.parametrize("text", ["", "  \n", "\x07\x00"])
def test_nothing_is_learned_from_no_words(preparer: Preparer, tmp_path: Path, text: str) -> None:
    with pytest.raises(LeftOutError, match="empty-text"):
        preparer.check(Row("clip.wav", text, tmp_path / "clip.wav"))


def test_a_text_is_learned_as_a_draft_would_show_it(preparer: Preparer, processor: Any, tmp_path: Path) -> None:
    (tmp_path / "clip.wav").write_bytes(wav_bytes(noise(1)))
    labels, _ = preparer.check(Row("clip.wav", " o\u0302\n telo ", tmp_path / "clip.wav"))
    assert processor.tokenizer.decode(labels) == (
        "<|startoftranscript|><|mg|><|transcribe|><|notimestamps|>ô telo<|endoftext|>"
    )


def test_spectrograms_come_back_from_the_disk_bit_by_bit(
    preparer: Preparer, processor: Any, market: Sequence[Utterance], tmp_path: Path
) -> None:
    """Without the silence that pads the window: that is most of it, and comes back, too."""
    full = Utterance("telo", "x", "A", noise(WINDOW_S))
    clips = [*market[:20], full, Utterance("roa", "x", "A", silence(1)), Utterance("dimy", "x", "A", noise(0.02))]
    rows = read_rows(write_side(tmp_path / "data", "train", clips), "train")
    told: list[int] = []
    prepared = prepare(preparer, rows, tmp_path / "train.arrow", lambda done: bool(told.append(done)))
    assert prepared
    assert told == list(range(1, 24))
    assert len(prepared.rows) == len(prepared.lengths) == 23
    assert prepared.seconds == pytest.approx(sum(clip.seconds for clip in clips))
    for row, stored, length in zip(rows, prepared.rows, prepared.lengths, strict=True):
        audio = read_audio(row.path, WINDOW_S)
        features = processor.feature_extractor(audio, sampling_rate=SAMPLE_RATE, return_tensors="np").input_features[0]
        frames = WINDOWS.samples(len(audio)) // 160
        assert length == (stored["frames"], len(stored["labels"])) == (frames, length[1])
        assert np.array_equal(whole(np.asarray(stored["features"]), 80, frames), features[:, :frames])
        assert processor.tokenizer.decode(stored["labels"], skip_special_tokens=True) == row.text
    assert len(prepared.rows[21]["features"]) < 80 * 10
    assert (tmp_path / "train.arrow").stat().st_size < 0.8 * 23 * 80 * 300 * 4


def test_packing_keeps_what_only_looks_like_padding() -> None:
    features = np.zeros((2, 6), dtype=np.float32)
    features[0, 1] = features[1, 3] = 1
    assert packed(features).shape == (2, 5)
    for odd in (features, np.ones((2, 6), np.float32), np.eye(2, 6, 4, dtype=np.float32)):
        assert np.array_equal(whole(packed(odd).reshape(-1), 2, 6), odd)


def test_one_bad_file_among_many_is_left_out_and_counted(
    preparer: Preparer, market: Sequence[Utterance], tmp_path: Path
) -> None:
    write_side(tmp_path, "train", market)
    clips = tmp_path / "train" / "clips"
    (clips / "3.wav").write_bytes(b"no sound")
    (clips / "5.wav").unlink()
    (clips / "7.wav").unlink()
    prepared = prepare(preparer, read_rows(tmp_path, "train"), tmp_path / "train.arrow", lambda _: False)
    assert prepared
    assert prepared.left_out == {"audio-not-audio": 1, "audio-missing": 2}
    assert len(prepared.rows) == len(market) - 3


def test_preparing_ends_when_it_is_told_to(preparer: Preparer, market: Sequence[Utterance], tmp_path: Path) -> None:
    rows = read_rows(write_side(tmp_path, "train", market[:9]), "train")
    told: list[int] = []

    def step(done: int) -> bool:
        told.append(done)
        return done == 4

    assert prepare(preparer, rows, tmp_path / "train.arrow", step) is None
    assert told == [1, 2, 3, 4]


def test_a_few_rows_are_taken_from_everywhere() -> None:
    rows = [Row(str(number), "", None) for number in range(1_000)]
    assert [int(row.file_name) for row in spread(rows, 4)] == [0, 250, 500, 750]
    assert list(spread(rows[:3], 50)) == rows[:3]
    assert list(spread([], 50)) == []
