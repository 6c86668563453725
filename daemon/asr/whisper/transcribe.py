"""`Transcriber` for any Whisper: cut, guard, hear, stitch, flag."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from daemon.asr.chunking import cut, stitch
from daemon.asr.transcriber import SAMPLE_RATE, Draft, Transcriber, Waveform, uncertainty
from daemon.asr.whisper import guards
from daemon.asr.whisper.config import GuardSettings
from daemon.asr.whisper.listener import Heard, Listener


class WhisperTranscriber(Transcriber):
    """A loaded Whisper. Build it with `daemon.asr.whisper.load.load_transcriber`."""

    def __init__(
        self,
        listener: Listener,
        *,
        name: str,
        fingerprint: str,
        window_s: float,
        guard_settings: GuardSettings,
        facts: dict[str, Any],
    ) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.window_s = window_s
        self._window = round(window_s * SAMPLE_RATE)
        self._listener = listener
        self._guards = guard_settings
        self._facts = facts

    def transcribe(self, batch: Sequence[Waveform]) -> list[Draft]:
        """Draft each waveform, in order, of any length; windows of all of them share the device's batches.

        Raises the device's own error if a single window does not fit into its memory.
        """
        pieces = [cut(audio, self._window) for audio in batch]
        heard = self._hear(list(itertools.chain.from_iterable(pieces)))
        return [self._draft(parts, list(itertools.islice(heard, len(parts)))) for parts in pieces]

    def warm_up(self) -> None:
        """Run the device once on a full window; the guards, which would refuse noise, are left out."""
        noise = np.random.default_rng(0).standard_normal(self._window).astype(np.float32) * 0.1
        self._listener.warm_up(noise)

    def describe(self) -> dict[str, Any]:
        """Name, fingerprint, window, device, dtype, language, task and number of parameters."""
        return super().describe() | self._facts

    def _hear(self, windows: Sequence[Waveform]) -> Iterator[Heard | None]:
        """What was said in each window; None where nothing was."""
        silent = [guards.is_silent(window, self._guards) for window in windows]
        loud = [window for window, mute in zip(windows, silent, strict=True) if not mute]
        answers = iter(self._listener.hear(loud))
        for mute in silent:
            answer = None if mute else next(answers)
            yield None if answer is None or self._no_speech(answer) else answer

    def _no_speech(self, heard: Heard) -> bool:
        return guards.no_speech(heard.no_speech, heard.log_probability / heard.tokens, self._guards)

    def _draft(self, windows: Sequence[Waveform], parts: Sequence[Heard | None]) -> Draft:
        heard = [part for part in parts if part is not None]
        chunked = [guards.CHUNKED] if len(parts) > 1 else []
        raw = guards.clean(stitch(part.text for part in heard))
        if not raw:
            return Draft("", None, (guards.SILENCE, *chunked))
        text = guards.cut_loop(raw)
        voice = self._voice([window for window, part in zip(windows, parts, strict=True) if part is not None])
        confidence = sum(part.log_probability for part in heard) / sum(part.tokens for part in heard)
        astray = {
            guards.REPETITION: text != raw or guards.repeats(raw, self._guards),
            # a probability of drawn words says little
            guards.LOW_CONFIDENCE: not voice or any(part.temperature for part in heard),
            guards.TRUNCATED: not all(part.finished for part in heard),
        }
        unsure = confidence < self._guards.low_log_probability
        flags = (flag for flag, raised in astray.items() if raised or (flag == guards.LOW_CONFIDENCE and unsure))
        believed = not any(astray.values())
        return Draft(text, confidence, (*flags, *chunked), uncertainty(confidence) if believed else 0.0)

    def _voice(self, windows: Sequence[Waveform]) -> bool:
        """Whether it can be a voice to which the words were put."""
        gliding, pitched, loud = (sum(counts) for counts in zip(*map(guards.pitched, windows), strict=True))
        moves = pitched >= self._guards.pitched * loud and gliding >= self._guards.gliding * pitched
        return bool(moves) and not guards.recurs(np.concatenate(windows), self._guards)
