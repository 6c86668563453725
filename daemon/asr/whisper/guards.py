"""What keeps invented sentences out of the drafts. Pure: waveforms and texts in, verdicts out.

Limits, told plainly: the audio gate knows level and liveliness. Music, clatter, applause and other voices rise and fall
like speech and go on to the model, where the no-speech rule, the compression ratio and the confidence remain, and a
look for a voice's pitch and for sound that is its own copy, which flag and never drop. What glides as a voice does,
such as song or a violin, may pass them all.
"""

from __future__ import annotations

import itertools
import math
import unicodedata
import zlib
from typing import Any

import numpy as np

from daemon.asr.transcriber import SAMPLE_RATE, Waveform
from daemon.asr.whisper.config import GuardSettings

SILENCE, REPETITION, LOW_CONFIDENCE, TRUNCATED, CHUNKED = (
    "silence",
    "repetition",
    "low-confidence",
    "truncated",
    "chunked",
)

_FRAME, _HOP = 512, 256
"""Samples: 32 ms every 16 ms."""
_SMOOTH = 5
"""Frames, 80 ms: evens out the chance in noise and leaves syllables standing."""
_SPEECH_HZ = (150, 3800)
_SHORTEST = SAMPLE_RATE // 10
"""Samples: no word is shorter than a tenth of a second."""
_WORD = 10
"""Hops, 160 ms."""
_PITCH_FRAME = 640
"""Samples, 40 ms: three periods of a low voice."""
_PITCH_WINDOW = np.hanning(_PITCH_FRAME).astype(np.float32)
_PITCH_LAGS = (SAMPLE_RATE // 400, SAMPLE_RATE // 70)
"""Samples: from the period of a high voice to that of a low one."""
_PITCH_SIZE = 900
"""A frame and the longest lag, and a size that the transform is fast at."""
_VOICED = 0.6
"""How alike one period and the next have to be; 1 is equal."""
_STILL, _LEAP = 0.05, 1.5
"""Semitones from one hop to the next. What moves less stands still, what moves more is another tone."""
_COPIED_HZ = (210, 3800)
"""The band in which copies are looked for: above the overtones of mains that are strong, of 150 and 180 Hz."""
_STRETCH = 30 * SAMPLE_RATE
"""Samples in which copies are looked for at once: bounds the memory, and a loop with a longer round is a recording."""
_FEWEST_PAIRS = 7
_LONGEST_LOOP = 120
"""Characters of the phrase that is repeated."""
_LOOP_TIMES, _LOOP_CHARACTERS = 5, 24
"""A tail is a loop if it says the same so many times over so much text; "tsara tsara" and a refrain are not."""


def is_silent(audio: Waveform, settings: GuardSettings) -> bool:
    """Whether there is nothing to transcribe: too short for a word, too quiet, or a noise that never changes."""
    if len(audio) < _SHORTEST:
        return True
    levels = _levels_db(audio)
    heard = np.sort(levels[levels > settings.silence_dbfs])
    if not len(heard):
        return True
    # One word in half a minute of noise must show: "loud" is what a sixth of a second reaches, however long the rest.
    quiet, loud = heard[len(heard) // 10], heard[-min(_WORD, 1 + len(heard) // 20)]
    return bool(loud - quiet < settings.steady_db)


def no_speech(probability: float | None, log_probability: float, settings: GuardSettings) -> bool:
    """Whether nobody spoke, by Whisper's own rule; `log_probability` is per token."""
    return (
        probability is not None
        and probability > settings.no_speech_probability
        and log_probability < settings.no_speech_log_probability
    )


def _levels_db(audio: Waveform) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Level of the speech band over time, in dB of full scale (a constant of 1.0 would be 0)."""
    frames = np.lib.stride_tricks.sliding_window_view(audio, _FRAME)[::_HOP]
    window = np.hanning(_FRAME)
    spectrum = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    hertz = np.fft.rfftfreq(_FRAME, 1 / SAMPLE_RATE)
    band = (hertz >= _SPEECH_HZ[0]) & (hertz <= _SPEECH_HZ[1])
    power = 2 * spectrum[:, band].sum(axis=1) / (_FRAME * np.sum(window**2))
    smooth = np.convolve(power, np.ones(_SMOOTH) / _SMOOTH, mode="valid" if len(power) >= _SMOOTH else "same")
    levels: np.ndarray[tuple[int], np.dtype[np.float64]] = 10 * np.log10(smooth + 1e-20)
    return levels


def pitched(audio: Waveform) -> tuple[int, int, int]:
    """In how many frames a pitch moves by a little, in how many there is one, and how many are loud.

    A voice is never quite at rest. An instrument, a machine or a bell keeps its pitch or leaps, a noise has none.
    """
    if len(audio) < _PITCH_FRAME + _HOP:
        return 0, 0, 0
    frames = np.lib.stride_tricks.sliding_window_view(audio, _PITCH_FRAME)[::_HOP]
    power = np.mean(frames**2, axis=1, dtype=float)
    loud = power > max(power.max() * 1e-3, 1e-9)
    heard = frames[loud]
    alike = _autocorrelation((heard - heard.mean(axis=1, keepdims=True)) * _PITCH_WINDOW)
    alike /= (alike[:, :1] + 1e-12) * (_autocorrelation(_PITCH_WINDOW) / np.sum(_PITCH_WINDOW**2) + 1e-3)
    lags = slice(_PITCH_LAGS[0], _PITCH_LAGS[1])
    lag, voiced = np.ones(len(frames)), np.zeros(len(frames), dtype=bool)
    lag[loud] = _between(alike, alike[:, lags].argmax(axis=1) + lags.start)
    voiced[loud] = alike[:, lags].max(axis=1) > _VOICED
    both = voiced[1:] & voiced[:-1]
    step = np.abs(np.diff(12 * np.log2(lag)))
    return int(np.sum(both & (step > _STILL) & (step < _LEAP))), int(np.sum(both)), int(np.sum(loud))


def _between(alike: Any, peaks: Any) -> Any:
    """Where a parabola through each peak and its neighbours is highest: whole samples are steps of up to 0.4 semitones.

    Rounded to those, the still tone of a drum would seem to move, and a slow voice to stand still.
    """
    before, top, after = (alike[np.arange(len(peaks)), peaks + step] for step in (-1, 0, 1))
    curve = np.minimum(before - 2 * top + after, -1e-9)
    return peaks + np.clip((before - after) / (2 * curve), -0.5, 0.5)


def recurs(audio: Waveform, settings: GuardSettings) -> bool:
    """Whether the sound, wave for wave, is a copy of what came before: a stuck buffer, a loop, a machine.

    Nobody says a thing twice to the wave. An echo is a copy as well, but fainter: it never makes more than half.
    """
    copied = whole = 0.0
    for at in range(0, len(audio), _STRETCH):
        share, energy = _copied(audio[at : at + _STRETCH])
        copied, whole = copied + share * energy, whole + energy
    return copied > settings.copied * whole


def _copied(audio: Waveform) -> tuple[float, float]:
    """How much of the speech band comes again after the best lag, from 0 to 1, and the band's energy."""
    count, longest = len(audio), len(audio) // 2  # two rounds at least, and no sample without a partner
    if longest < _SHORTEST:
        return 0.0, 0.0
    size = _size(count + longest)  # padded, so that the end does not meet the beginning
    first, end = (math.ceil(hertz * size / SAMPLE_RATE) for hertz in _COPIED_HZ)
    spectrum = np.fft.rfft(audio, size)
    spectrum[:first] = 0  # mains hum under a voice is its own copy, too
    spectrum[end:] = 0
    energy = np.concatenate([[0.0], np.cumsum(np.fft.irfft(spectrum, size)[:count] ** 2, dtype=float)])
    without_end = energy[count - longest : count - _SHORTEST + 1][::-1]  # by the lag
    without_start = energy[count] - energy[_SHORTEST : longest + 1]
    alike = 2 * np.fft.irfft(_power(spectrum), size)[_SHORTEST : longest + 1] / (without_end + without_start + 1e-12)
    return max(float(alike.max()), 0.0), float(energy[count])


def _autocorrelation(frames: Any) -> Any:
    return np.fft.irfft(_power(np.fft.rfft(frames, _PITCH_SIZE)), _PITCH_SIZE)


def _power(spectrum: Any) -> Any:
    return spectrum.real**2 + spectrum.imag**2


def _size(least: int) -> int:
    """The next size of at least so much that the transform is fast at: an eighth more at most."""
    step = max(1, 1 << (least - 1).bit_length() - 4)
    return -(-least // step) * step


def repeats(text: str, settings: GuardSettings) -> bool:
    """Whether a text says the same over and over: by Whisper's own test, or because the same two words come again."""
    raw = text.encode()
    words = text.split()
    pairs = list(itertools.pairwise(words))
    again = len(pairs) >= _FEWEST_PAIRS and len(set(pairs)) <= settings.different_pairs * len(pairs)
    return again or (bool(raw) and len(raw) / len(zlib.compress(raw)) > settings.compression_ratio)


def cut_loop(text: str) -> str:
    """Keep the first round of a phrase that the end of the text repeats without end, even if broken off midway."""
    for period in range(1, min(_LONGEST_LOOP, len(text) // _LOOP_TIMES) + 1):
        start = len(text) - period
        while start > 0 and text[start - 1] == text[start - 1 + period]:
            start -= 1
        looped = len(text) - start
        if looped >= max(_LOOP_TIMES * period, _LOOP_CHARACTERS):
            end = start + period
            while " " in text[start:end].strip() and not text[end - 1].isspace() and end < len(text):
                end += 1  # the run began within a word that only ends like the phrase: finish the word
            return text[:end].strip()
    return text


def clean(text: str) -> str:
    """What may be stored and shown: NFC, one line, no control characters, no broken bytes, no outer space."""
    kept = (
        " " if char.isspace() else char
        for char in unicodedata.normalize("NFC", text)
        if char.isspace() or (unicodedata.category(char) not in ("Cc", "Cs", "Cn") and char not in "\ufffd\ufeff")
    )
    return " ".join("".join(kept).split())
