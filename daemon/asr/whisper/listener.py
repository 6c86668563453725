"""From windows of audio to words: spectrograms, batches of one length, a second try for what went astray."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from daemon.asr.errors import out_of_memory
from daemon.asr.transcriber import SAMPLE_RATE, Waveform
from daemon.asr.whisper import guards
from daemon.asr.whisper.config import GuardSettings
from daemon.asr.whisper.engine import Engine, Spoken
from daemon.asr.whisper.windows import Windows, spectrograms

_SMALLER_S = 600.0
"""Seconds for which batches stay smaller after one that did not fit."""
_MORE = 4
"""So many times the batch at most, where windows are short: the decoder's share does not shrink with them."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the model made of one window."""

    text: str
    log_probability: float
    """Sum over the generated tokens, the end token included where it came."""
    tokens: int
    """How many that are; at least 1."""
    finished: bool
    """Whether the end token came before the decoder was full."""
    no_speech: float | None
    """Probability of Whisper's no-speech token, where the model has one."""
    temperature: float
    """Above 0 where the likeliest words went astray, and others were drawn."""


class Listener:
    """An engine and what belongs to its model."""

    def __init__(
        self, engine: Engine, processor: Any, windows: Windows, batch_size: int, guard_settings: GuardSettings
    ) -> None:
        """`batch_size`: whole windows on the device at once; of shorter ones more."""
        self._engine = engine
        self._extractor = processor.feature_extractor
        self._tokenizer = processor.tokenizer
        self._windows = windows
        self._budget = batch_size * round(windows.seconds[-1] * SAMPLE_RATE)
        self._most = _MORE * batch_size
        self._guards = guard_settings
        self._share, self._until = 1, 0.0

    def warm_up(self, wave: Waveform) -> None:
        """Run the device once, whatever comes of it."""
        self._engine.hear(spectrograms(self._extractor, [wave], self._windows.samples(len(wave))))

    def hear(self, waves: Sequence[Waveform]) -> list[Heard]:
        """Transcribe waveforms of at most one window each, in batches of equal windows.

        A batch that does not fit into the device's memory is halved, and so are those of the next ten minutes: a
        trainer may have come, and goes again. The device's error comes out when a single window does not fit.
        """
        heard: dict[int, Heard] = {}
        windows = [self._windows.samples(len(wave)) for wave in waves]
        share, emptied = self._share if time.monotonic() < self._until else 1, False
        for window in sorted(set(windows), reverse=True):  # what does not fit had better show at once
            left = [at for at, its in enumerate(windows) if its == window]
            while left:
                most = max(1, self._at_once(window) // share)
                batch = left[:most]
                try:
                    heard |= zip(batch, self._hear_batch([waves[at] for at in batch], window), strict=True)
                    left = left[most:]
                    continue
                except (RuntimeError, MemoryError) as error:
                    if len(batch) == 1 or not out_of_memory(error):
                        raise
                # Only here, outside the handler, are the failed batch's tensors free.
                share = -(-self._at_once(window) // (len(batch) // 2))
                self._share, self._until = share, time.monotonic() + _SMALLER_S
                if not emptied and torch.cuda.is_available():
                    torch.cuda.empty_cache()
                    emptied = True
        return [heard[at] for at in range(len(waves))]

    def _at_once(self, window: int) -> int:
        return max(1, min(self._most, self._budget // window))

    def _hear_batch(self, waves: Sequence[Waveform], window: int) -> list[Heard]:
        features = spectrograms(self._extractor, waves, window)
        heard = [self._heard(spoken, 0.0) for spoken in self._engine.hear(features)]
        for temperature in self._guards.temperatures:
            astray = [at for at, each in enumerate(heard) if self._astray(each)]
            if not astray:
                break
            for at, spoken in zip(astray, self._engine.hear(features[astray], temperature), strict=True):
                again = self._heard(spoken, temperature)
                if not self._astray(again):
                    heard[at] = again
        return heard

    def _astray(self, heard: Heard) -> bool:
        """Whether other words had better be tried: they go round in a circle, or find no end.

        Whisper's other reason, a low probability, is left out: it is what a model has that does not know a language
        yet, and words that are drawn are no likelier.
        """
        if guards.no_speech(heard.no_speech, heard.log_probability / heard.tokens, self._guards):
            return False
        return not heard.finished or guards.repeats(heard.text, self._guards)

    def _heard(self, spoken: Spoken, temperature: float) -> Heard:
        text = self._tokenizer.decode(spoken.tokens, skip_special_tokens=True)
        said = len(spoken.tokens) + spoken.finished
        return Heard(text, spoken.log_probability, said, spoken.finished, spoken.no_speech, temperature)


def no_speech_token(tokenizer: Any) -> int | None:
    """The token with which Whisper says that nobody speaks; None where the vocabulary has none."""
    vocabulary = tokenizer.get_vocab()
    # Older vocabularies call it by its first name.
    found: int | None = vocabulary.get("<|nospeech|>", vocabulary.get("<|nocaptions|>"))
    return found
