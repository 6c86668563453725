from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.asr.transcriber import SAMPLE_RATE, Waveform
from daemon.asr.whisper.config import GuardSettings
from daemon.asr.whisper.guards import clean, cut_loop, is_silent, pitched, recurs, repeats
from daemon.local.speech import Utterance, concatenate, noise, silence, speak_corpus

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


def drums(seconds: float, seed: int) -> Waveform:
    """A drum of one low tone and a hat of noise; no two pauses between hits are equal."""
    draw = np.random.default_rng(seed)
    tone = draw.uniform(60, 130)
    wave = draw.standard_normal(round(seconds * SAMPLE_RATE)) * 1e-3
    for at in np.cumsum(draw.integers(3_200, 11_200, round(seconds))):
        time = np.arange(len(wave) - at) / SAMPLE_RATE
        drum = np.exp(-20 * time) * np.sin(2 * np.pi * tone * time)
        wave[at:] += drum + 0.3 * np.exp(-60 * time) * draw.standard_normal(len(time))
    return (wave * 0.3).astype(np.float32)


def test_the_pitch_of_a_drum_hardly_moves_and_that_of_speech_does(
    market: Sequence[Utterance], clinic: Sequence[Utterance]
) -> None:
    """Low tones under noise, whose pitch seems to jump as soon as it is rounded to samples; and slow, deep voices."""

    def gliding(audio: Waveform) -> float:
        moving, steady, _ = pitched(audio)
        return moving / steady

    assert max(gliding(drums(4, seed)) for seed in range(40)) < GUARDS.gliding
    assert min(gliding(clip.audio) for clip in itertools.chain(market, clinic)) > 1.4 * GUARDS.gliding


@pytest.mark.parametrize("round_s", [0.12, 0.4, 0.95])
@pytest.mark.parametrize("seconds", [2.0, 9.0, 40.0])
def test_what_comes_again_wave_for_wave_is_a_copy(round_s: float, seconds: float, market: Sequence[Utterance]) -> None:
    """Even under a noise that is new all the time."""
    for clip in market[:5]:
        piece = clip.audio[3200 : 3200 + round(round_s * SAMPLE_RATE)]
        looped = np.resize(piece, round(seconds * SAMPLE_RATE))
        assert recurs(looped, GUARDS)
        assert recurs(looped + noise(seconds, rms=float(piece.std()) / 8), GUARDS)


def test_speech_is_no_copy_of_itself(market: Sequence[Utterance], clinic: Sequence[Utterance]) -> None:
    """Nor its echo, nor a hum under it, nor one word said again and again by a living mouth."""
    words = speak_corpus("A", 150, seed=9003, rambling=1.0)
    clips = [clip.audio for clip in itertools.chain(market, clinic, words)]
    echoing = [np.pad(clip, (0, 3200)) + np.pad(clip, (3200, 0)) for clip in clips]
    humming = [clip + hum(len(clip) / SAMPLE_RATE)[: len(clip)] for clip in clips]
    again = [concatenate([clip.audio for clip in words if "tsara" in clip.text.split()])]
    assert not [audio for audio in [*clips, *echoing, *humming, *again] if recurs(audio, GUARDS)]


def test_nothing_is_no_copy() -> None:
    assert not any(recurs(silence(seconds), GUARDS) for seconds in (0.0, 0.1, 0.25, 2.0))


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
