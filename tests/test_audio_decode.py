"""Real and hostile files through the real child."""

from __future__ import annotations

import io
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import soundfile
import soxr

from daemon.asr.transcriber import Waveform
from daemon.audio_reasons import REASONS
from daemon.decode import Decoder
from daemon.errors import PermanentError

pytestmark = pytest.mark.asyncio(loop_scope="module")
DATA_AT = 44
"""Where the samples begin in the WAV files of `sound`."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def decoder() -> AsyncIterator[Decoder]:
    async with Decoder() as made:
        yield made


async def decode(decoder: Decoder, content: bytes, folder: Path) -> Waveform:
    path = folder / "clip"
    path.write_bytes(content)
    with path.open("rb") as file:
        return await decoder.decode(file)


async def reason(decoder: Decoder, content: bytes, folder: Path) -> str:
    with pytest.raises(PermanentError) as caught:
        await decode(decoder, content, folder)
    assert str(caught.value) == REASONS[caught.value.reason]
    return caught.value.reason


def sound(rate: int = 16_000, *, channels: int = 1, seconds: float = 2.0, **options: Any) -> bytes:
    """A 440 Hz tone; the channels differ in level, and their mean has amplitude 0.3."""
    time = np.arange(int(rate * seconds)) / rate
    levels = np.linspace(0.1, 0.5, channels) if channels > 1 else np.array([0.3])
    file = io.BytesIO()
    soundfile.write(file, np.sin(2 * np.pi * 440 * time)[:, None] * levels, rate, **{"format": "WAV"} | options)
    return file.getvalue()


def wav(
    data: bytes, *, tag: int = 1, channels: int = 1, rate: int = 16_000, bits: int = 16, size: int | None = None
) -> bytes:
    frame = channels * bits // 8
    size = len(data) if size is None else size
    head = struct.pack(
        "<4sI4s4sIHHIIHH",
        b"RIFF",
        min(36 + size, 0xFFFFFFFF),
        b"WAVE",
        b"fmt ",
        16,
        tag,
        channels,
        rate,
        rate * frame & 0xFFFFFFFF,
        frame & 0xFFFF,
        bits,
    )
    return head + struct.pack("<4sI", b"data", size) + data


def floats(*values: float, count: int = 16_000) -> bytes:
    samples = np.zeros(count, "<f4")
    samples[-len(values) :] = values
    return wav(samples.tobytes(), tag=3, bits=32)


def flac_promising(content: bytes, frames: int) -> bytes:
    """Overwrite the 36-bit count of samples in STREAMINFO; 0 means unknown."""
    changed = bytearray(content)
    changed[21] = changed[21] & 0xF0 | frames >> 32
    changed[22:26] = (frames & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(changed)


FLAC = sound(format="FLAC")
GOOD = {
    "the rule": sound(),
    "stereo 44.1 kHz": sound(44_100, channels=2),
    "8 kHz": sound(8_000),
    "48 kHz 24 bits": sound(48_000, subtype="PCM_24"),
    "8 bits": sound(subtype="PCM_U8"),
    "float": sound(subtype="FLOAT"),
    "mu-law": sound(8_000, subtype="ULAW"),
    "8 channels": sound(channels=8),
    "lowest rate": sound(4_000),
    "highest rate": sound(192_000),
    "odd rate": sound(44_099),
    "extensible": sound(format="WAVEX", channels=2),
    "FLAC": sound(44_100, format="FLAC"),
    "Vorbis": sound(44_100, format="OGG", subtype="VORBIS"),
    "Opus": sound(48_000, channels=2, format="OGG", subtype="OPUS"),
    "MP3": sound(44_100, format="MP3"),
    "FLAC of unknown length": flac_promising(FLAC, 0),
    "WAV streamed by ffmpeg": sound()[:40] + b"\xff\xff\xff\xff" + sound()[44:],
    "WAV streamed by sox": sound()[:40] + struct.pack("<I", 0x7FFFFFFF - 36) + sound()[44:],
    "99 % of a WAV": sound()[: DATA_AT + int(64_000 * 0.99)],
    "chunks before the data": sound()[:36] + b"LIST\x03\0\0\0abc\0" + sound()[36:],
}


@pytest.mark.parametrize("name", GOOD)
async def test_a_good_file_becomes_16_khz_mono(decoder: Decoder, name: str, tmp_path: Path) -> None:
    wave = await decode(decoder, GOOD[name], tmp_path)
    assert (wave.dtype, wave.ndim, wave.flags.writeable) == (np.float32, 1, True)
    assert abs(len(wave) / 32_000 - 1) < 0.011
    spectrum = np.abs(np.fft.rfft(wave[8_000:24_000]))
    assert np.argmax(spectrum) == 440
    assert spectrum[440] / 8_000 == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize(
    ("rate", "form"), [(4_000, "WAV"), (44_100, "WAV"), (8_000, "FLAC"), (48_000, "MP3"), (44_100, "OGG")]
)
async def test_blocks_leave_no_seam(decoder: Decoder, rate: int, form: str, tmp_path: Path) -> None:
    """Decoding in blocks equals decoding, mixing and resampling the whole file at once."""
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, (rate * 5, 2)).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, noise, rate, format=form)
    whole, _ = soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")
    expected = np.clip(soxr.resample(np.clip(whole.mean(axis=1), -1, 1), rate, 16_000, quality="HQ"), -1, 1)
    wave = await decode(decoder, file.getvalue(), tmp_path)
    assert len(wave) == len(expected)
    np.testing.assert_allclose(wave, expected, atol=1e-4)


async def test_samples_stay_in_range(decoder: Decoder, tmp_path: Path) -> None:
    """Float files may hold anything finite; a model's spectrum of 1e38 would be infinite."""
    wave = await decode(decoder, floats(3e38, -3e38, 0.5), tmp_path)
    assert wave[-3:].tolist() == [1.0, -1.0, 0.5]


HOSTILE = {
    "nothing": (b"", "audio-empty"),
    "text": (b"This is a transcript, not a sound.\n" * 40, "audio-not-audio"),
    "a page": (b"<!doctype html><title>404</title>", "audio-not-audio"),
    "zeros": (bytes(4096), "audio-not-audio"),
    "one byte": (b"\xff", "audio-not-audio"),
    "four bytes": (b"RIFF", "audio-not-audio"),
    "RIFF, no WAVE": (b"RIFF\x04\0\0\0AVI ", "audio-not-audio"),
    "WAVE alone": (b"RIFF\x04\0\0\0WAVE", "audio-not-audio"),
    "FLAC mark alone": (b"fLaC", "audio-not-audio"),
    "Ogg mark alone": (b"OggS", "audio-not-audio"),
    "ID3 and text": (b"ID3\x04\0\0\0\0\0\0" + b"text " * 100, "audio-not-audio"),
    "a rarer format behind ID3": (b"ID3\x04\0\0\0\0\0\n" + bytes(10) + sound(format="AU"), "audio-not-audio"),
    "a rarer format": (sound(format="AIFF"), "audio-not-audio"),
    "5,000 empty chunks": (wav(b"")[:36] + b"junk\0\0\0\0" * 5_000 + wav(bytes(4_000))[36:], "audio-not-audio"),
    "no frames": (wav(b""), "audio-empty"),
    "header only": (wav(b"", size=32_000), "audio-truncated"),
    "half a WAV": (sound()[: DATA_AT + 32_000], "audio-truncated"),
    "97 % of a WAV": (sound()[: DATA_AT + int(64_000 * 0.97)], "audio-truncated"),
    "half a FLAC": (FLAC[: len(FLAC) // 2], "audio-truncated"),
    "FLAC, damaged": (FLAC[: len(FLAC) // 2] + bytes(2_000) + FLAC[len(FLAC) // 2 + 2_000 :], "audio-truncated"),
    "FLAC promising more": (flac_promising(FLAC, 40_000), "audio-truncated"),
    "half an MP3": (sound(format="MP3")[:1_700], "audio-truncated"),
    "one frame": (wav(b"\1\0"), "audio-too-short"),
    "159 frames": (wav(bytes(318)), "audio-too-short"),
    "NaN": (floats(float("nan")), "audio-nonfinite"),
    "infinity": (floats(float("-inf")), "audio-nonfinite"),
    "both infinities": (floats(float("inf"), float("-inf")), "audio-nonfinite"),
    "NaN in the last of 60 s": (floats(float("nan"), count=960_000), "audio-nonfinite"),
    "9 channels": (wav(bytes(18_000), channels=9), "audio-channels"),
    "1024 channels": (wav(bytes(204_800), channels=1024), "audio-channels"),
    "no channels": (wav(bytes(3_200), channels=0), "audio-not-audio"),
    "rate 3,999": (wav(bytes(32_000), rate=3_999), "audio-rate"),
    "rate 192,001": (wav(bytes(32_000), rate=192_001), "audio-rate"),
    "rate 2^31-1": (wav(bytes(32_000), rate=(1 << 31) - 1), "audio-rate"),
    "three hours declared, FLAC": (flac_promising(FLAC, 3 * 3_600 * 16_000), "audio-too-long"),
    "three hours declared, WAV": (wav(bytes(32_000), size=3 * 3_600 * 32_000), "audio-truncated"),
    "most frames a FLAC can declare": (flac_promising(FLAC, (1 << 36) - 1), "audio-too-long"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_file_is_refused_by_name(decoder: Decoder, name: str, tmp_path: Path) -> None:
    content, expected = HOSTILE[name]
    before = decoder.pids
    assert await reason(decoder, content, tmp_path) == expected
    assert not before or decoder.pids == before, "the child survives what it refuses"


async def test_160_samples_are_enough(decoder: Decoder, tmp_path: Path) -> None:
    assert len(await decode(decoder, wav(bytes(320)), tmp_path)) == 160


@pytest.mark.parametrize("declared", [9_600_000, 0])
async def test_a_bomb_costs_no_memory(decoder: Decoder, declared: int, tmp_path: Path) -> None:
    """Ten minutes of stereo silence, 77 MB as samples: taken or refused, the child holds one block of it."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros((9_600_000, 2), np.int16), 16_000, format="FLAC")
    content = flac_promising(file.getvalue(), declared)
    assert len(content) < 50_000
    assert len(await decode(decoder, content, tmp_path)) == 9_600_000
    async with Decoder(max_seconds=599) as strict:
        assert await reason(strict, content, tmp_path) == "audio-too-long"
        dense = flac_promising(sound(48_000, channels=8, seconds=1, format="FLAC"), 48_000 * 200)
        assert await reason(strict, dense, tmp_path) == "audio-too-large"
        assert max(peak_bytes(pid) for pid in strict.pids + decoder.pids) < 64 << 20


def peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
