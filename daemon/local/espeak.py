"""espeak-ng in this process, through the library that the wheel `espeakng-loader` carries.

The library is global to its process and remembers what it spoke: the same words can come out a little different after
other words. Whoever needs the same bytes again speaks the same list in a fresh process (see `daemon.local.speech`).
"""

from __future__ import annotations

import ctypes

import numpy as np
import soxr

from daemon.asr.transcriber import SAMPLE_RATE, Waveform

_SYNCHRONOUS = 2
"""`espeak_Initialize`'s output mode in which `espeak_Synth` returns when the last sample was handed over."""
_RATE, _PITCH = 1, 3
"""Parameter numbers of `espeak_SetParameter`."""
_UTF8 = 1
_SEED = 1
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Espeak:
    """One voice box. Build at most one per process; not thread-safe."""

    def __init__(self) -> None:
        import espeakng_loader  # late: the wheel belongs to the extra `local`

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self._rate: int = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, 0)
        if self._rate <= 0:
            raise RuntimeError("espeak-ng found no voice data: install the wheel espeakng-loader again.")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(_SEED))  # breathy voices; it would be the time of day
        self._heard = bytearray()
        self._callback = _Callback(self._collect)  # kept: the library holds only the bare pointer
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, *, voice: str, words_per_minute: int, pitch: int) -> Waveform:
        """Read a text aloud: mono float32 at 16 kHz, with espeak's own short pauses around it.

        `voice` may carry a variant (``id+f1``); `pitch` runs from 0 to 99. Raises `ValueError` for an unknown voice.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice}.")
        self._library.espeak_SetParameter(_RATE, words_per_minute, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        self._heard.clear()
        encoded = text.encode() + b"\0"
        self._library.espeak_Synth(encoded, len(encoded), 0, 0, 0, _UTF8, None, None)
        pcm = np.frombuffer(bytes(self._heard), dtype=np.int16).astype(np.float32) / 32768
        resampled: Waveform = soxr.resample(pcm, self._rate, SAMPLE_RATE)
        return resampled

    def _collect(self, samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int | None) -> int:
        if count > 0:  # the last call of an utterance brings none, and no pointer
            self._heard += ctypes.string_at(samples, 2 * count)
        return 0
