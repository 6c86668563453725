"""What eight bits do to the words: the engines on the same weights, and CTranslate2's own conversion beside ours.

    python benchmarks/eight_bits.py [--clips 500]

The carried small Whisper, clips of words that it knows and of others. "same" is the share of clips with the very text
that transformers makes of them in float32. Where the processor has no instructions for eight bits, the library's own
conversion overflows (`daemon/asr/whisper/eight_bits.py`); where it has, the two differ by one bit of precision.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from report import Cost, Table, cost, heading

from daemon.asr.metrics import word_error_rate
from daemon.asr.whisper import eight_bits
from daemon.asr.whisper.config import WhisperSettings
from daemon.asr.whisper.load import load_transcriber
from daemon.local.speech import speak_corpus
from daemon.local.tiny import BASE

CPUINFO = Path("/proc/cpuinfo")
FAST = WhisperSettings(str(BASE), device="cpu", engine="ctranslate2")


def _of_the_library(spec: Any) -> None:
    spec.optimize("int8")


def main() -> None:
    """Measure and print a table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--clips", type=int, default=500)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    flags = CPUINFO.read_text(encoding="utf-8") if CPUINFO.exists() else ""
    vnni = f"; a processor with{'' if 'vnni' in flags else 'out'} VNNI" if "avx2" in flags else ""
    print(f"{heading()}; {given.clips} clips of each kind{vnni}\n")
    table = Table(("engine", "WER, words it knows", "same", "WER, others", "same", "CPU s"))
    sides = [speak_corpus("A", given.clips, seed=31), speak_corpus("B", given.clips, seed=32)]
    first: list[list[str]] | None = None
    for name, settings, quantize in (
        ("transformers, float32", replace(FAST, engine="transformers"), eight_bits.quantize),
        ("CTranslate2, float32", replace(FAST, dtype="float32"), eight_bits.quantize),
        ("CTranslate2, int8 as the library converts", FAST, _of_the_library),
        ("CTranslate2, int8 as we do", FAST, eight_bits.quantize),
    ):
        with patch.object(eight_bits, "quantize", quantize):
            model = load_transcriber(settings)
        with cost(spent := Cost()):
            said = [[draft.text for draft in model.transcribe([clip.audio for clip in side])] for side in sides]
        first = first or said
        cells = []
        for side, texts, plain in zip(sides, said, first, strict=True):
            same = sum(one == other for one, other in zip(texts, plain, strict=True)) / len(side)
            cells += [f"{word_error_rate([clip.text for clip in side], texts):.1%}", f"{same:.1%}"]
        table.add(name, *cells, f"{spent.cpu_s:.1f}")


if __name__ == "__main__":
    main()
