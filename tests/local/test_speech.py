from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from daemon.asr.transcriber import SAMPLE_RATE
from daemon.local.phrasebook import CLINIC, MARKET, WORLDS, Domain, respell
from daemon.local.speech import LONGEST_S, concatenate, noise, silence, speak_corpus, wav_bytes


@pytest.mark.parametrize("domain", ["A", "B"])
def test_the_same_request_gives_the_same_bytes(domain: Domain) -> None:
    """Breathy voices and the synthesiser's memory would both break this within one process."""
    first, again, longer = (speak_corpus(domain, count, seed=5) for count in (25, 25, 40))
    for clip, same, other in zip(first, again, longer, strict=False):
        assert clip.audio.tobytes() == same.audio.tobytes() == other.audio.tobytes()
        assert (clip.text, clip.speaker) == (same.text, same.speaker) == (other.text, other.speaker)
    assert any(clip.text != other.text for clip, other in zip(first, speak_corpus(domain, 25, seed=6), strict=True))


@pytest.mark.parametrize("domain", ["A", "B"])
def test_clips_are_audible_short_and_of_their_domain(domain: Domain) -> None:
    lexicon, speakers = WORLDS[domain]
    words = {word for kind in lexicon.values() for word in kind}
    clips = speak_corpus(domain, 60, seed=1, rambling=0.3)
    assert len(clips) == 60
    for clip in clips:
        assert clip.audio.dtype == np.float32
        assert clip.domain == domain
        assert set(clip.text.split()) <= words
        assert 0.2 < clip.seconds <= LONGEST_S
        assert np.abs(clip.audio).max() == pytest.approx(0.6, abs=1e-3)
    assert {clip.speaker for clip in clips} == {speaker.name for speaker in speakers}


def test_excluded_sentences_are_not_spoken() -> None:
    taken = {clip.text for clip in speak_corpus("B", 40, seed=2)}
    assert not taken & {clip.text for clip in speak_corpus("B", 40, seed=2, exclude=taken)}


def test_a_request_that_cannot_be_spoken_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"speech synthesis failed .*: KeyError: 'C'$"):
        speak_corpus("C", 1, seed=0)  # type: ignore[arg-type]


def test_the_clinic_has_words_that_the_market_never_says() -> None:
    market, clinic = ({word for kind in world.values() for word in kind} for world in (MARKET, CLINIC))
    assert len(clinic - market) == 10


@pytest.mark.parametrize(("written", "heard"), [("ao rakoto", "au rakutu"), ("izy jamba", "izi dzamba"), ("ô", "o")])
def test_respelling(written: str, heard: str) -> None:
    assert respell(written) == heard


def test_wav_is_what_the_editor_stores() -> None:
    audio = noise(0.5, rms=0.1)
    wav = wav_bytes(audio)
    info = soundfile.info(io.BytesIO(wav))
    assert (info.samplerate, info.channels, info.subtype, info.frames) == (SAMPLE_RATE, 1, "PCM_16", len(audio))
    read, _ = soundfile.read(io.BytesIO(wav), dtype="float32")
    assert np.abs(read - audio).max() < 1e-4


def test_concatenation_puts_pauses_between_clips_only() -> None:
    whole = concatenate([noise(0.1, seed=1), noise(0.2, seed=2)], pause_s=0.5)
    assert len(whole) == round(0.8 * SAMPLE_RATE)
    assert not whole[1600 : 1600 + 8000].any()
    assert len(concatenate([])) == len(silence(0)) == 0
