from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.asr.transcriber import SAMPLE_RATE, Waveform
from daemon.asr.whisper.config import GuardSettings
from daemon.asr.whisper.guards import clean, cut_loop, is_silent, repeats
from daemon.local.speech import Utterance, noise, silence, speak_corpus

GUARDS = GuardSettings()


def coloured_noise(seconds: float, slope: int, seed: int) -> Waveform:
    """Noise whose power falls with frequency: 0 white, 1 pink, 2 brown."""
    count = round(seconds * SAMPLE_RATE)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    hertz = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    hertz[0] = hertz[1]
    wave = np.fft.irfft(spectrum * hertz ** (-slope / 2), count)
    return (wave / wave.std() * 0.05).astype(np.float32)


def hum(seconds: float) -> Waveform:
    """Mains and its overtones, as a bad cable gives them."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return sum(0.1 / k * np.sin(2 * np.pi * 50 * k * time) for k in (1, 3, 5, 7)).astype(np.float32)


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.3, 3.0, 30.0])
def test_nothing_to_hear_is_silence(seconds: float) -> None:
    quiet = [silence(seconds), noise(seconds, rms=2e-5), hum(seconds)]
    if seconds:
        quiet += [coloured_noise(seconds, slope, seed) for slope in (0, 1, 2) for seed in range(5)]
    assert all(is_silent(audio, GUARDS) for audio in quiet)


def test_noise_between_digital_silences_is_silence() -> None:
    assert is_silent(np.concatenate([silence(1), noise(2), silence(1)]), GUARDS)


def test_speech_is_never_taken_for_silence(market: Sequence[Utterance], clinic: Sequence[Utterance]) -> None:
    """Whole clips, soft ones at -40 dB, and half-second cuts from within words."""
    more = speak_corpus("A", 150, seed=9003, rambling=0.3)
    clips = [clip.audio for clip in itertools.chain(market, clinic, more)]
    inside = [clip[at : at + 8000] for clip in clips for at in range(3200, len(clip) - 11200, 8000)]
    assert len(inside) > 200
    soft = [clip * 0.01 for clip in clips]
    assert not [audio for audio in [*clips, *soft, *inside] if is_silent(audio, GUARDS)]


def test_one_word_in_half_a_minute_of_noise_is_heard(market: Sequence[Utterance]) -> None:
    shortest = min((clip.audio for clip in market), key=len)
    audio = noise(30, rms=float(shortest.std()) / 3)
    audio[160_000 : 160_000 + len(shortest)] += shortest
    assert not is_silent(audio, GUARDS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("izy ny tena ny tena ny tena ny tena ny tena ny te", "izy ny tena"),
        ("misaotra misaotra misaotra misaotra misaotra misaotra", "misaotra"),
        ("ny rano sy ny hena sy ny hena sy ny hena sy ny hena sy ny hena", "ny rano sy ny hena"),
        ("eny " + "la" * 40, "eny la"),
        ("haleloia haleloia haleloia haleloia", "haleloia haleloia haleloia haleloia"),
        ("tsara tsara ny andro", "tsara tsara ny andro"),
        ("ha ha ha ha ha ha", "ha ha ha ha ha ha"),
        ("valo 1000000000", "valo 1000000000"),
        ("", ""),
    ],
)
def test_a_blatant_loop_at_the_end_is_cut_to_one_round(text: str, expected: str) -> None:
    assert cut_loop(text) == expected


@given(
    head=st.lists(st.sampled_from(["ny", "izy", "rano", "mena"]), max_size=6),
    phrase=st.lists(st.sampled_from(["ny", "izy", "rano", "mena"]), min_size=1, max_size=5),
    times=st.integers(8, 40),
    broken=st.integers(0, 9),
)
def test_cutting_a_loop_keeps_a_beginning_made_of_whole_words(
    head: list[str], phrase: list[str], times: int, broken: int
) -> None:
    whole = " ".join([*head, *phrase * times])
    text = whole[: len(whole) - broken]
    kept = cut_loop(text)
    assert whole.startswith(kept)
    assert kept == text.strip() or set(kept.split()) <= {"ny", "izy", "rano", "mena"}
    if len(" ".join(phrase)) * times > 60:
        assert len(kept.split()) <= len(head) + 2 * len(phrase) + 1


def test_compression_ratio_tells_repetition_from_speech() -> None:
    assert repeats("ny tena " * 20, GUARDS)
    assert not repeats("mividy trondro telo izy androany ary mitondra rano fotsy ho an'ny zanany rahampitso", GUARDS)
    assert not repeats("", GUARDS)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("  ny\x00 rano\x1b[2J \n\tmena ", "ny rano[2J mena"),
        ("o\u0302 \ufffdmisy\ufeff", "ô misy"),
        ("a\u2028b\u00a0c", "a b c"),
    ],
)
def test_clean(raw: str, text: str) -> None:
    assert clean(raw) == text
