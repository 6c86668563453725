"""Sounds in which nobody speaks, and sounds that make a decoder say the same for ever."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from daemon.asr.transcriber import SAMPLE_RATE, Waveform
from daemon.local.speech import Utterance

Sounds = dict[str, Waveform]


def silences() -> Sounds:
    """Digital silence: zeros, and what a cheap converter makes of them."""
    return {
        "zeros, 0.3 s": np.zeros(4_800, np.float32),
        "zeros, 3 s": np.zeros(48_000, np.float32),
        "zeros, 40 s": np.zeros(640_000, np.float32),
        "an offset": np.full(64_000, 0.02, np.float32),
        "the last bit": np.where(np.arange(64_000) % 7, 0, 1 / 32_768).astype(np.float32),
    }


def nobody(dice: random.Random) -> Sounds:
    """Noise of several colours and places, and music."""
    draw = np.random.default_rng(dice.randrange(1 << 32))
    seconds = 4.0
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    crackle = np.where(draw.random(len(time)) < 3e-4, draw.standard_normal(len(time)), 0)
    return {
        "white noise": _level(draw.standard_normal(len(time)), 0.05),
        "pink noise": _level(_coloured(draw, len(time), 1), 0.05),
        "brown noise": _level(_coloured(draw, len(time), 2), 0.1),
        "faint noise": _level(draw.standard_normal(len(time)), 0.001),
        "mains": _level(sum(np.sin(2 * np.pi * 50 * k * time) / k for k in (1, 3, 5, 7)), 0.1),
        "a fan": _level(_coloured(draw, len(time), 1) * (1 + 0.2 * np.sin(2 * np.pi * 11 * time)), 0.05),
        "rain": _level(_coloured(draw, len(time), 1) + 3 * crackle, 0.05),
        "a scratched record": _level(crackle, 0.02),
        "a tone": _level(np.sin(2 * np.pi * 440 * time), 0.1),
        "a siren": _level(np.sin(2 * np.pi * 700 * time + 60 * np.sin(2 * np.pi * 0.5 * time)), 0.1),
        "an organ": _level(_chords(time, [(220, 277, 330)], 0), 0.1),
        "strings": _level(_chords(time, [(196, 247, 294), (220, 262, 330)], 5.5), 0.1),
        "a music box": _level(_plucked(time, [523, 659, 784, 1047], 4), 0.1),
        "a bass": _level(_plucked(time, [55, 65, 82], 2), 0.2),
        "drums": _level(_beats(draw, time, 2), 0.1),
    }


def loops(spoken: Sequence[Utterance], dice: random.Random) -> Sounds:
    """The same again and again: words, pieces of words, and rhythms that sound like them."""
    clips = dice.sample(list(spoken), 4)
    time = np.arange(6 * SAMPLE_RATE) / SAMPLE_RATE
    draw = np.random.default_rng(dice.randrange(1 << 32))
    made: Sounds = {}
    for number, (clip, piece) in enumerate(zip(clips, (0.12, 0.25, 0.4, 0.8), strict=True)):
        start = int(len(clip.audio) * 0.3)
        part = clip.audio[start : start + round(piece * SAMPLE_RATE)]
        made[f"{piece} s of speech, again and again"] = np.tile(part, round(8 / piece))
        if number < 3:
            made[f"a sentence {number + 3} times"] = np.tile(clip.audio, number + 3)
    vowels = _chords(time, [(140, 700, 1_100), (140, 300, 2_300)], 0)
    made["two vowels by turns"] = _level(vowels * (0.5 + 0.5 * np.sin(2 * np.pi * 4 * time)), 0.1)
    made["syllables of noise"] = _level(_coloured(draw, len(time), 1) * (np.sin(2 * np.pi * 4 * time) > 0), 0.1)
    made["pulses"] = _level(np.sin(2 * np.pi * 180 * time) * (np.sin(2 * np.pi * 3 * time) > 0), 0.1)
    return made


def _level(wave: Any, rms: float) -> Waveform:
    return np.clip(wave / wave.std() * rms, -1, 1).astype(np.float32)


def _coloured(draw: np.random.Generator, count: int, slope: int) -> Any:
    """Noise whose power falls with frequency."""
    spectrum = np.fft.rfft(draw.standard_normal(count))
    hertz = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    hertz[0] = hertz[1]
    return np.fft.irfft(spectrum * hertz ** (-slope / 2), count)


def _chords(time: Any, chords: Sequence[Sequence[float]], vibrato: float) -> Any:
    """Chords one after the other, each tone with overtones and a vibrato of so many hertz."""
    which = (time // 1).astype(int) % len(chords)
    wave = np.zeros_like(time)
    for number, chord in enumerate(chords):
        for tone in chord:
            phase = 2 * np.pi * tone * time + (0.02 * tone / max(vibrato, 1)) * np.sin(2 * np.pi * vibrato * time)
            wave += (which == number) * sum(np.sin(k * phase) / k for k in range(1, 6))
    return wave


def _plucked(time: Any, tones: Sequence[float], per_second: float) -> Any:
    """Tones by turns that fade away."""
    since = time % (1 / per_second)
    tone = np.asarray(tones)[(time * per_second).astype(int) % len(tones)]
    return np.exp(-6 * since) * sum(np.sin(2 * np.pi * k * tone * since) / k for k in (1, 2, 3))


def _beats(draw: np.random.Generator, time: Any, per_second: float) -> Any:
    """A drum and a hat."""
    drum = np.exp(-20 * (time % (1 / per_second))) * np.sin(2 * np.pi * 80 * time)
    hat = np.exp(-60 * (time % (0.5 / per_second))) * draw.standard_normal(len(time))
    return drum + 0.3 * hat
