"""Sounds in which nobody speaks. They are the same at every call."""

from __future__ import annotations

import numpy as np

from daemon.asr.transcriber import SAMPLE_RATE, Waveform

_SECONDS = (0.5, 3.0, 10.0)
_LOUDNESS = 0.05
"""Effective value; 1.0 is full scale."""
_SWELLS_HZ = (0.5, 2.0)
_SWELL_DB = 20.0


def steady() -> list[Waveform]:
    """Digital silence, hiss and rumble, each in three lengths: a model that finds words here invents them."""
    draw = np.random.default_rng(0)
    sounds: list[Waveform] = []
    for seconds in _SECONDS:
        samples = round(seconds * SAMPLE_RATE)
        hiss = draw.standard_normal(samples)
        rumble = np.convolve(draw.standard_normal(samples + 63), np.ones(64), mode="valid")
        sounds += [_levelled(sound) for sound in (np.zeros(samples), hiss, rumble)]
    return sounds


def swelling() -> list[Waveform]:
    """Noise that comes and goes like speech, so that no gate on the level stops it before the model."""
    draw = np.random.default_rng(1)
    sounds: list[Waveform] = []
    for seconds in _SECONDS[1:]:
        time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        for hertz in _SWELLS_HZ:
            level_db = _SWELL_DB / 2 * (np.sin(2 * np.pi * hertz * time) - 1)
            sounds.append(_levelled(draw.standard_normal(len(time)) * 10 ** (level_db / 20)))
    return sounds


def _levelled(sound: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Waveform:
    power = float(np.sqrt(np.mean(sound**2)))
    return (sound * (_LOUDNESS / power if power else 0.0)).astype(np.float32)
