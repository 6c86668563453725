"""`Transcriber` for any Whisper: cut, guard, hear, stitch, flag."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from daemon.asr import device
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
        self._beside = ThreadPoolExecutor(1, "voice")
        """Looks for a voice while the device is at work: beside a fast one that would take the longer of the two."""

    def transcribe(self, batch: Sequence[Waveform]) -> list[Draft]:
        """Draft each waveform, in order, of any length; windows of all of them share the device's batches.

        Raises the device's own error if a single window does not fit into its memory.
        """
        clips = [cut(audio, self._window) for audio in batch]
        loud = [[window for window in clip if not guards.is_silent(window, self._guards)] for clip in clips]
        voices = [self._beside.submit(self._voice, windows) for windows in loud]
        try:
            parts = iter(self._listener.hear(list(itertools.chain.from_iterable(loud))))
        except BaseException:
            for voice in voices:
                voice.cancel()  # or they would go before those of the next try
            raise
        return [
            self._draft(len(clip) > 1, windows, list(itertools.islice(parts, len(windows))), voice)
            for clip, windows, voice in zip(clips, loud, voices, strict=True)
        ]

    def warm_up(self) -> None:
        """Run the device once on a full window; the guards, which would refuse noise, are left out."""
        noise = np.random.default_rng(0).standard_normal(self._window).astype(np.float32) * 0.1
        self._listener.warm_up(noise)

    def memory(self) -> tuple[int, int] | None:
        """See `Transcriber.memory`."""
        if not self._facts["device"].startswith("cuda"):
            return None
        found = device.measure(self._facts["device"], self._facts["dtype"])
        return found.free, found.total

    def describe(self) -> dict[str, Any]:
        """Name, fingerprint, window, device, dtype, language, task and number of parameters."""
        return super().describe() | self._facts

    def _no_speech(self, heard: Heard) -> bool:
        return guards.no_speech(heard.no_speech, heard.log_probability / heard.tokens, self._guards)

    def _draft(self, chunked: bool, windows: Sequence[Waveform], parts: Sequence[Heard], voice: Future[bool]) -> Draft:
        """Of a clip's windows that are not silent. `voice`: whether there is one in them, all taken together."""
        spoken = [(window, part) for window, part in zip(windows, parts, strict=True) if not self._no_speech(part)]
        heard = [part for _, part in spoken]
        cut_up = [guards.CHUNKED] if chunked else []
        raw = guards.clean(stitch(part.text for part in heard))
        if not raw:
            return Draft("", None, (guards.SILENCE, *cut_up))
        text = guards.cut_loop(raw)
        alive = voice.result() if len(spoken) == len(windows) else self._voice([window for window, _ in spoken])
        confidence = sum(part.log_probability for part in heard) / sum(part.tokens for part in heard)
        astray = {
            guards.REPETITION: text != raw or guards.repeats(raw, self._guards),
            # a probability of drawn words says little
            guards.LOW_CONFIDENCE: not alive or any(part.temperature for part in heard),
            guards.TRUNCATED: not all(part.finished for part in heard),
        }
        unsure = confidence < self._guards.low_log_probability
        flags = (flag for flag, raised in astray.items() if raised or (flag == guards.LOW_CONFIDENCE and unsure))
        believed = not any(astray.values())
        return Draft(text, confidence, (*flags, *cut_up), uncertainty(confidence) if believed else 0.0)

    def _voice(self, windows: Sequence[Waveform]) -> bool:
        """Whether it can be a voice to which the words were put."""
        if not windows:
            return False
        gliding, pitched, loud = (sum(counts) for counts in zip(*map(guards.pitched, windows), strict=True))
        moves = pitched >= self._guards.pitched * loud and gliding >= self._guards.gliding * pitched
        return bool(moves) and not guards.recurs(np.concatenate(windows), self._guards)
