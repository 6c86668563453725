"""The decoder's child process: one sound file in, mono float32 samples out, behind limits.

libsndfile parses what strangers upload, and parsers of media have memory bugs. So this program holds no secret, and
on Linux it gives up, before it sees the first file: new files and TCP (Landlock), more than one open file, memory,
children and core files. `daemon.decode` starts it by its path; it imports nothing of the project.

Wire (standard input is a Unix stream socket): the parent sends one byte with one file descriptor. The answer is a row
of frames `HEADER(kind, length) + payload`: ``W`` samples (float32, native order), then ``E`` (the end), or ``X`` with
the slug of a refusal. A first ``R`` says that the child is ready: it has decoded a file of its own
behind its limits.
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

HEADER = struct.Struct(">cI")
BLOCK_FRAMES = 1 << 14
MIN_SAMPLES = 160
"""10 ms at 16 kHz: shorter than one analysis window."""
SAMPLES_PER_SECOND = 96_000
"""Over all channels, 48 kHz stereo: `max_seconds` of this is the most that is ever decoded, whatever the format."""
UNKNOWN_FRAMES = (1 << 63) - 1
WHOLE = 0.98
"""A file that holds less than this part of what its header promises was cut off on its way."""
STREAMED_BYTES = (1 << 31) - (1 << 16)
MAX_CHUNKS = 4096


class Refused(Exception):  # noqa: N818 - a verdict on a file, not a fault of the program
    """The file is not a clip; the text is the slug that goes into the answer."""


class _Stream(soundfile.SoundFile):  # type: ignore[misc]  # soundfile carries no types
    """Reads forward only: soundfile's seek after every block fails on FLAC of unknown length and blurs MP3."""

    def seekable(self) -> bool:
        return False


def decode(fd: int, *, rate: int, max_seconds: float) -> Iterator[npt.NDArray[np.float32]]:
    """Yield blocks of mono float32 in [-1, 1] at `rate` Hz. Raise `Refused` once the file is known to be no clip."""
    with _open(fd) as sound:
        _check_header(sound, max_seconds)
        resampler = None
        if sound.samplerate != rate:
            resampler = soxr.ResampleStream(sound.samplerate, rate, 1, dtype="float32", quality="HQ")
        block = np.empty((BLOCK_FRAMES, sound.channels), np.float32)
        weights = np.full(sound.channels, 1 / sound.channels, np.float32)
        heard = yielded = 0
        last = False
        while not last:
            try:
                part = sound.read(out=block)
            except soundfile.SoundFileError:
                raise Refused("audio-truncated") from None
            last = len(part) == 0
            heard += len(part)
            _check_length(heard, sound, max_seconds)
            mono = part @ weights  # the mean; numpy's own is ten times slower along so short an axis
            if not np.isfinite(mono).all():
                raise Refused("audio-nonfinite")
            mono = np.clip(mono, -1, 1)
            if resampler:
                mono = np.clip(resampler.resample_chunk(mono, last=last), -1, 1)
            yielded += len(mono)
            if len(mono):
                yield mono
        if sound.frames != UNKNOWN_FRAMES and heard < WHOLE * sound.frames:
            raise Refused("audio-truncated")
        if heard == 0:
            raise Refused("audio-empty")
        if yielded < MIN_SAMPLES:
            raise Refused("audio-too-short")


def _open(fd: int) -> _Stream:
    """Let libsndfile see the four families that recorders write, and none of its twenty rarer parsers."""
    if os.fstat(fd).st_size == 0:
        raise Refused("audio-empty")
    os.lseek(fd, 0, os.SEEK_SET)
    magic = os.pread(fd, 12, 0)
    if magic[:4] == b"RIFF" and magic[8:] == b"WAVE":
        _check_wav(fd)
    elif not (magic[:4] in (b"fLaC", b"OggS") or magic[:3] == b"ID3" or (magic[0] == 0xFF and magic[1:2] >= b"\xe0")):
        raise Refused("audio-not-audio")
    try:
        sound = _Stream(fd, closefd=False)
    except (soundfile.SoundFileError, ValueError, TypeError, KeyError):
        raise Refused("audio-not-audio") from None
    if sound.format not in ("WAV", "WAVEX", "FLAC", "OGG", "MP3"):
        raise Refused("audio-not-audio")
    return sound


def _check_wav(fd: int) -> None:
    """Compare the data chunk's promise with the file, which libsndfile does not: it reads what is there.

    FLAC and most MP3 promise a number of frames, which is counted while decoding; Ogg promises nothing.

    Writers to a pipe cannot go back to fill in the length and leave 2^31 or 2^32, less a little: that promises nothing.
    """
    size = os.fstat(fd).st_size
    at = 12
    for _ in range(MAX_CHUNKS):
        name, length = struct.unpack("<4sI", os.pread(fd, 8, at).ljust(8, b"\0"))
        at += 8
        if at > size:
            return
        if name == b"data":
            if length < STREAMED_BYTES and size - at < WHOLE * length:
                raise Refused("audio-truncated")
            return
        at += length + length % 2
    raise Refused("audio-not-audio")


def _check_header(sound: _Stream, max_seconds: float) -> None:
    if not 1 <= sound.channels <= 8:
        raise Refused("audio-channels")
    if not 4_000 <= sound.samplerate <= 192_000:
        raise Refused("audio-rate")
    if sound.frames != UNKNOWN_FRAMES:
        _check_length(sound.frames, sound, max_seconds)


def _check_length(frames: int, sound: _Stream, max_seconds: float) -> None:
    if frames > max_seconds * sound.samplerate:
        raise Refused("audio-too-long")
    if frames * sound.channels > max_seconds * SAMPLES_PER_SECOND:
        raise Refused("audio-too-large")


def _get_ready(rate: int, memory_bytes: int) -> None:
    """Decode a known file before and after the doors close.

    The first time loads what the libraries load late. The second proves that the limits leave enough: a machine that
    cannot decode must not be taken for a file that cannot be decoded.
    """
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 3236, b"WAVE", b"fmt ", 16, 1, 2, 8_000, 32_000, 4, 16)
    with tempfile.TemporaryFile() as file:
        file.write(head + struct.pack("<4sI", b"data", 3_200) + bytes(3_200))
        file.flush()
        for _ in decode(file.fileno(), rate=rate, max_seconds=1):
            pass
        if sys.platform == "linux":
            _confine(memory_bytes)
        for _ in decode(file.fileno(), rate=rate, max_seconds=1):
            pass


def _confine(memory_bytes: int) -> None:
    """Give up what decoding does not need. A compromised child can lift none of these limits."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(444, None, 0, 1)  # landlock_create_ruleset: the version this kernel knows, -1 for none
    if version >= 1:
        fs = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
        attributes = struct.pack("=QQQ", fs, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]
        ruleset = libc.syscall(444, attributes, len(attributes), 0)
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        if ruleset < 0 or libc.syscall(446, ruleset, 0) != 0:  # landlock_restrict_self
            raise OSError(ctypes.get_errno(), "Landlock refused the rules")
        os.close(ruleset)
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 4),  # standard input, output, error, and the one file sent
    ):
        resource.setrlimit(limit, (value, value))


def _allow_cpu(seconds: int) -> None:
    """The limit counts from the start of the process: move it on for each file."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def main() -> None:
    """Answer files until the parent closes the socket. Arguments: rate, max_seconds, memory_bytes, cpu_seconds."""
    rate, max_seconds, memory_bytes, cpu_seconds = (
        int(sys.argv[1]),
        float(sys.argv[2]),
        int(sys.argv[3]),
        int(sys.argv[4]),
    )
    channel = socket.socket(fileno=0)
    _get_ready(rate, memory_bytes)
    channel.sendall(HEADER.pack(b"R", 0))
    while True:
        message, (*fds,), _, _ = socket.recv_fds(channel, 1, 1)
        if not message:
            return
        _allow_cpu(cpu_seconds)
        verdict = HEADER.pack(b"E", 0)
        try:
            for block in decode(fds[0], rate=rate, max_seconds=max_seconds):
                channel.sendall(HEADER.pack(b"W", block.nbytes) + block.tobytes())
        except Refused as refusal:
            slug = str(refusal).encode()
            verdict = HEADER.pack(b"X", len(slug)) + slug
        os.close(fds[0])
        channel.sendall(verdict)


if __name__ == "__main__":
    main()
