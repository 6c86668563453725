"""The real small model and real speech, once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from daemon.asr.transcriber import Draft, Transcriber
from daemon.asr.whisper.config import WhisperSettings
from daemon.asr.whisper.load import load_transcriber
from daemon.local.speech import Utterance, speak_corpus
from daemon.local.tiny import BASE


@pytest.fixture(scope="session")
def transcriber() -> Transcriber:
    torch.set_num_threads(1)
    return load_transcriber(WhisperSettings(model=str(BASE), device="cpu", engine="transformers"))


@pytest.fixture(scope="session")
def market() -> Sequence[Utterance]:
    """Sentences of the domain that the model was trained on, from a seed that it was not trained on."""
    return speak_corpus("A", 40, seed=9001)


@pytest.fixture(scope="session")
def clinic() -> Sequence[Utterance]:
    """The domain that the model has never heard."""
    return speak_corpus("B", 40, seed=9002)


@pytest.fixture(scope="session")
def market_drafts(transcriber: Transcriber, market: Sequence[Utterance]) -> list[Draft]:
    return transcriber.transcribe([clip.audio for clip in market])
