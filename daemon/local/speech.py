"""Synthetic speech for the demo, the tests and the small base model: the same request always gives the same bytes.

Each corpus is spoken in a fresh child process, because espeak-ng's output depends on what the process said before.
The child reads the request as JSON from standard input and writes an ``.npz`` archive to standard output.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from daemon.asr.transcriber import SAMPLE_RATE, Waveform
from daemon.local.espeak import Espeak
from daemon.local.phrasebook import WORLDS, Channel, Domain, compose, ramble, respell

LONGEST_S = 3.0
"""Longer clips are dropped and another sentence is spoken instead: the small model's window is that long."""


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """A clip and what was really said in it."""

    text: str
    speaker: str
    domain: Domain
    audio: Waveform

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.audio) / SAMPLE_RATE


def speak_corpus(
    domain: Domain, count: int, seed: int, exclude: Iterable[str] = (), *, rambling: float = 0.0
) -> list[Utterance]:
    """Speak `count` sentences of a domain, none of them in `exclude`, at most three seconds each.

    `rambling` is the share of clips that hold loose words instead of a sentence.
    The same arguments give the same bytes on the same machine and library version. Raises `RuntimeError` with the
    child's last words if it fails, for instance without the extra ``local``.
    """
    request = {"domain": domain, "count": count, "seed": seed, "exclude": sorted(set(exclude)), "rambling": rambling}
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    child = subprocess.run(
        [sys.executable, "-m", "daemon.local.speech"],
        input=json.dumps(request).encode(),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    if child.returncode != 0:
        last_words = child.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise RuntimeError(f"The speech synthesis failed (it needs the extra local): {last_words or child.returncode}")
    with np.load(io.BytesIO(child.stdout)) as archive:
        pieces = np.split(archive["audio"], archive["ends"])[:-1]
        return [
            Utterance(str(text), str(speaker), domain, piece)
            for text, speaker, piece in zip(archive["texts"], archive["speakers"], pieces, strict=True)
        ]


def silence(seconds: float) -> Waveform:
    """Digital silence."""
    return np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32)


def noise(seconds: float, *, rms: float = 0.05, seed: int = 0) -> Waveform:
    """White noise of a given effective value (1.0 is full scale)."""
    drawn = np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE))
    return (drawn * rms).astype(np.float32)


def concatenate(clips: Sequence[Waveform], *, pause_s: float = 0.3) -> Waveform:
    """One long recording: the clips in order with digital silence between them."""
    parts: list[Waveform] = []
    for clip in clips:
        parts += [silence(pause_s), clip] if parts else [clip]
    return np.concatenate(parts) if parts else silence(0)


def wav_bytes(audio: Waveform, sample_rate: int = SAMPLE_RATE) -> bytes:
    """A mono PCM-16 WAV file, the editor's format."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, audio, sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def _speak_here(domain: Domain, count: int, seed: int, exclude: list[str], rambling: float) -> list[Utterance]:
    """The child's work: texts, voices and channels are all drawn from the seed."""
    lexicon, speakers = WORLDS[domain]
    rng = Random(f"{domain}:{seed}")  # noqa: S311 - reproducible on purpose
    espeak = Espeak()
    unwanted = frozenset(exclude)
    spoken: list[Utterance] = []
    while len(spoken) < count:
        said = (ramble if rng.random() < rambling else compose)(lexicon, rng)
        text = said.replace(",", "")
        if text in unwanted:
            continue
        speaker = rng.choice(speakers)
        dry = espeak.speak(
            respell(said),
            voice=speaker.voice,
            words_per_minute=round(speaker.words_per_minute * rng.uniform(*speaker.tempo)),
            pitch=min(99, max(0, speaker.pitch + rng.randint(-speaker.pitch_spread, speaker.pitch_spread))),
        )
        audio = _transmit(dry, speaker.channel, np.random.default_rng(rng.getrandbits(64)))
        if len(audio) <= LONGEST_S * SAMPLE_RATE:
            spoken.append(Utterance(text, speaker.name, domain, audio))
    return spoken


def _transmit(dry: Waveform, channel: Channel, rng: np.random.Generator) -> Waveform:
    """Band limits, tilt, pauses, noise; then the peak is set to 0.6."""
    loud = np.flatnonzero(np.abs(dry) > 0.004)
    words = dry[loud[0] : loud[-1] + 1] if len(loud) else dry
    before, after = (round(rng.uniform(*channel.margin_s) * SAMPLE_RATE) for _ in range(2))
    wave = np.pad(words, (before, after)).astype(np.float64)
    low, high, tilt = (rng.uniform(*span) for span in (channel.low_cut_hz, channel.high_cut_hz, channel.tilt_db))
    spectrum = np.fft.rfft(wave)
    hertz = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE)
    gain_db = tilt * (hertz / (SAMPLE_RATE / 2) - 0.5) - 30.0 * ((hertz < low) | (hertz > high))
    wave = np.fft.irfft(spectrum * 10 ** (gain_db / 20), len(wave))
    power = np.mean(wave**2) / 10 ** (rng.uniform(*channel.noise_db) / 10)
    wave += rng.standard_normal(len(wave)) * np.sqrt(power)
    levelled: Waveform = (wave * (0.6 / max(np.abs(wave).max(), 1e-9))).astype(np.float32)
    return levelled


def _child() -> None:
    spoken = _speak_here(**json.load(sys.stdin))
    np.savez(
        sys.stdout.buffer,
        audio=np.concatenate([clip.audio for clip in spoken]) if spoken else silence(0),
        ends=np.cumsum([len(clip.audio) for clip in spoken], dtype=np.int64),
        texts=np.array([clip.text for clip in spoken], dtype=str),
        speakers=np.array([clip.speaker for clip in spoken], dtype=str),
    )


if __name__ == "__main__":
    _child()
