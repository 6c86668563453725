"""A clip's samples as they are kept on disk."""

from __future__ import annotations

import io
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from daemon.asr.transcriber import SAMPLE_RATE, Waveform
from daemon.learning.durable import write_whole

Pcm = npt.NDArray[np.int16]
"""Shape (samples,), mono, 16 kHz."""

HEADER_BYTES = 44
SILENT_STEPS = 8
"""Between the highest and the lowest of 65,536 steps (-78 dB): less than the dither of a closed microphone."""


def to_pcm(wave: Waveform) -> Pcm:
    """The samples in 16 bits; exactly those of the file where that had 16 bits itself."""
    pcm: Pcm = np.clip(np.rint(wave * 32768.0), -32768, 32767).astype(np.int16)
    return pcm


def is_silent(pcm: Pcm) -> bool:
    """Whether nobody can have heard a word in it."""
    return len(pcm) == 0 or int(pcm.max()) - int(pcm.min()) <= SILENT_STEPS


def fingerprint(pcm: Pcm) -> str:
    """sha256 (hex) of the samples: equal means equal audio."""
    return sha256(pcm.astype("<i2").tobytes()).hexdigest()


def write_clip(path: Path, pcm: Pcm) -> None:
    """Write a WAV that is whole under its name."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    write_whole(path, buffer.getvalue())


def read_clip(path: Path) -> Pcm | None:
    """What `write_clip` has written; None if nothing."""
    import soundfile

    try:
        pcm: Pcm = soundfile.read(path, dtype="int16")[0]
    except soundfile.LibsndfileError:  # not there, or damaged since
        return None
    return pcm
