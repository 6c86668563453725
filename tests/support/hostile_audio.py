"""Sound files that break readers, sound files that only look so, and headers at random."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from daemon.local.speech import Utterance, wav_bytes

BOMB_FRAMES = 160 << 20
"""As float32 these are 640 MiB."""


def tone(rate: int = 16_000, *, channels: int = 1, seconds: float = 0.3, **options: Any) -> bytes:
    """440 Hz, in any format that libsndfile writes."""
    time = np.arange(int(rate * seconds)) / rate
    wave = np.repeat(0.3 * np.sin(2 * np.pi * 440 * time)[:, None], channels, axis=1)
    return written(wave, rate, **{"format": "WAV"} | options)


def written(wave: Any, rate: int, **options: Any) -> bytes:
    """A sound file's bytes."""
    file = io.BytesIO()
    soundfile.write(file, wave, rate, **options)
    return file.getvalue()


def wav(data: bytes, *, tag: int = 1, channels: int = 1, rate: int = 16_000, bits: int = 16) -> bytes:
    """A WAV with whatever header."""
    frame = channels * bits // 8
    head = (b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, tag, channels, rate, rate * frame & 0xFFFFFFFF, frame, bits)
    return struct.pack("<4sI4s4sIHHIIHH", *head) + struct.pack("<4sI", b"data", len(data)) + data


def of_unknown_length(flac: bytes) -> bytes:
    """A FLAC whose header does not tell how many samples follow."""
    changed = bytearray(flac)
    changed[21] &= 0xF0
    changed[22:26] = bytes(4)
    return bytes(changed)


@cache
def bomb(rate: int, channels: int) -> bytes:
    """160 Mi samples of silence as FLAC: some hundred kilobytes."""
    file, rest = io.BytesIO(), BOMB_FRAMES // channels
    with soundfile.SoundFile(file, "w", rate, channels, "PCM_16", format="FLAC") as sound:
        block = np.zeros((1 << 20, channels), np.int16)
        while rest > 0:
            sound.write(block[: min(rest, len(block))])
            rest -= len(block)
    return file.getvalue()


def _spoilt(value: float) -> bytes:
    samples = np.full(16_000, 0.1, np.float32)
    samples[8_000] = value
    return written(samples, 16_000, format="WAV", subtype="FLOAT")


def _damaged() -> bytes:
    flac = bytearray(tone(seconds=2, format="FLAC"))
    flac[len(flac) // 2 : len(flac) // 2 + 500] = bytes(500)
    return bytes(flac)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "audio-empty"),
    "a letter": (lambda: b"Not a recording, but a letter.\n" * 99, "audio-not-audio"),
    "half a WAV": (lambda: tone()[:5_000], "audio-truncated"),
    "no frame": (lambda: wav(b""), "audio-empty"),
    "one frame": (lambda: wav(b"\1\0"), "audio-too-short"),
    "not a number": (lambda: _spoilt(float("nan")), "audio-nonfinite"),
    "infinite": (lambda: _spoilt(float("inf")), "audio-nonfinite"),
    "640 MiB in a small FLAC": (lambda: bomb(16_000, 1), "audio-too-long"),
    "the same, its length not told": (lambda: of_unknown_length(bomb(16_000, 1)), "audio-too-long"),
    "1024 channels": (lambda: wav(bytes(204_800), channels=1024), "audio-channels"),
    "2^31 - 1 Hz": (lambda: wav(bytes(32_000), rate=(1 << 31) - 1), "audio-rate"),
    "a FLAC with a hole": (_damaged, "audio-truncated"),
}
"""Name -> how to make it, and the reason with which it has to be refused."""


def unusual(spoken: Utterance) -> dict[str, bytes]:
    """The same words in forms that recorders leave and a careless reader gets wrong."""
    audio = spoken.audio
    flac = written(audio, 16_000, format="FLAC")
    return {
        "stereo, 44.1 kHz": written(np.stack([_at(audio, 44_100)] * 2, axis=1), 44_100, format="WAV"),
        "8 kHz": written(_at(audio, 8_000), 8_000, format="WAV"),
        "48 kHz, 24 bits": written(_at(audio, 48_000), 48_000, format="WAV", subtype="PCM_24"),
        "FLAC, its length not told": of_unknown_length(flac),
        "WAV, its length not told": wav_bytes(audio)[:40] + b"\xff\xff\xff\xff" + wav_bytes(audio)[44:],
    }


def fuzzed(chance: random.Random, count: int) -> Iterator[bytes]:
    """Sound files with bytes of their headers flipped, overwritten, cut out and doubled."""
    seeds = [
        tone(),
        tone(format="WAVEX", channels=2, subtype="PCM_24"),
        tone(subtype="MS_ADPCM"),
        tone(format="FLAC"),
        tone(format="OGG", subtype="VORBIS"),
        tone(48_000, format="OGG", subtype="OPUS"),
        tone(44_100, format="MP3"),
    ]
    for _ in range(count):
        content = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 3)):
            # Mostly behind the mark, without which nothing is looked at.
            at = chance.randrange(4 if chance.random() < 0.8 else 0, min(len(content), chance.choice((64, 64, 4_096))))
            match chance.randrange(5):
                case 0:
                    content[at] ^= 1 << chance.randrange(8)
                case 1:
                    content[at : at + 4] = chance.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"))
                case 2:
                    del content[at : at + chance.randint(1, 16)]
                case 3:
                    content[at : at + 8] = chance.randbytes(8)
                case _:
                    content[at:at] = content[at : at + chance.randint(1, 64)]
        yield bytes(content)


class Memory:
    """How much more of it some processes took at their highest, together, since this was made."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids
        for pid in pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the highest begins anew
        self._before = sum(_kilobytes(pid, "VmRSS") for pid in pids)

    @property
    def grown_mb(self) -> float:
        """Megabytes."""
        return (sum(_kilobytes(pid, "VmHWM") for pid in self._pids) - self._before) / 1_000


def _kilobytes(pid: int, what: str) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().split(f"{what}:")[1].split()[0])


def _at(audio: Any, rate: int) -> Any:
    """Resampled by interpolation: good enough for words."""
    count = len(audio) * rate // 16_000
    return np.interp(np.arange(count) / rate, np.arange(len(audio)) / 16_000, audio)
