"""A backlog, and a clip by itself: the first part of `gpu.py`."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from card import SHARES, Batches, Card, gib
from peers import Draft, with_faster_whisper, with_ours, with_transformers
from report import Table, failure, spread
from shapes import SENTENCE, Shape
from work import Batch, drafting

from daemon.asr.transcriber import SAMPLE_RATE, Waveform
from daemon.asr.whisper import guards
from daemon.asr.whisper.config import GuardSettings
from daemon.asr.whisper.majors import open_processor
from daemon.asr.whisper.windows import Windows, spectrograms

_WHOLE, _FITTED = Windows.whole(30.0), Windows.right_sized(30.0)
_SIZES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}


@dataclass(frozen=True, slots=True)
class Way:
    """One of the ways of drafting."""

    name: str
    load: Callable[[], Draft]
    size: int
    """Bytes of a weight."""
    needs: Sequence[str] = ()
    """Modules. Where they are missing, or cannot use the device, that is told and is no failure."""
    loop: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """How a way did."""

    seconds: list[float]
    """Of each run over the clips."""
    alone: list[float]
    """Of each time that a clip was drafted by itself."""
    taken: float | None
    batches: list[Batch]
    """Of a run; none where another library than transformers was at work."""
    same: int
    """How many clips it said the sentence to."""


def babble(count: int, seconds: float, seed: int = 0) -> list[Waveform]:
    """Syllables without sense of about so many seconds, the half more or less: they pass the silence gate."""
    dice = np.random.default_rng(seed)
    waves = []
    for length in dice.uniform(0.5 * seconds, 1.5 * seconds, count):
        at = np.arange(round(length * SAMPLE_RATE)) / SAMPLE_RATE
        phase = np.cumsum(120 + 40 * np.sin(4 * at + dice.uniform(0, 6))) / SAMPLE_RATE
        voice = sum(np.sin(2 * np.pi * harmonic * phase) / harmonic for harmonic in range(1, 6))
        loudness = np.clip(np.sin(14 * at + dice.uniform(0, 6)), 0, 1)
        waves.append((0.2 * voice * loudness + 0.003 * dice.standard_normal(len(at))).astype(np.float32))
    return waves


def ways(folder: Path, batch: int, device: str) -> Iterator[Way]:
    """Everything that is compared. Each of CTranslate2's comes after one of transformers in the same windows."""
    cuda, threads = device == "cuda", torch.get_num_threads()
    half, ours, fast = ("bfloat16", "float16", "float16") if cuda else ("float32", "float32", "int8")
    loop = partial(with_transformers, folder, 1, device)
    yield Way("the origin's loop: transformers, float32, one by one, 30 s", loop, 4, loop=True)
    usual = partial(with_transformers, folder, batch, device, getattr(torch, half))
    yield Way(f"transformers, {half}, batched, 30 s", usual, _SIZES[half])
    faster = partial(with_faster_whisper, folder, batch, fast, threads, device)
    yield Way(f"faster-whisper, {fast}, batched, 30 s", faster, _SIZES[fast], needs=("faster_whisper", "ctranslate2"))
    for windows, told in ((_WHOLE, "30 s"), (_FITTED, "right-sized")):
        for engine, number, needs in (("transformers", ours, ()), ("ctranslate2", fast, ("ctranslate2",))):
            its = partial(with_ours, folder, batch, engine, number, windows, device, at_once=batch)
            yield Way(f"ours: {engine}, {number}, {told}", its, _SIZES[number], needs=needs)


def compare(card: Card, shape: Shape, model: Path, peak: tuple[float, float], given: argparse.Namespace) -> bool:
    """Measure and print. Returns whether one fails that has to work, or says something else than the others."""
    waves = babble(given.clips, given.seconds)
    mean_s = sum(map(len, waves)) / len(waves) / SAMPLE_RATE
    print(f"\n{len(waves)} clips of {mean_s:.1f} s, {given.loop} of them in the loop; batches of {given.batch}\n")
    table = Table(("way", "audio seconds a second", "of the loop", "a clip alone, p50 and most", *SHARES, "same words"))
    failed, loop, batches = False, 0.0, list[Batch]()
    for way in ways(model, given.batch, card.device):
        mine = waves[: given.loop] if way.loop else waves
        if missing := [name for name in way.needs if find_spec(name) is None]:
            table.add(way.name, f"not measured: {missing[0]} is not installed", *[""] * (len(table.head) - 2))
            continue
        try:
            found = _measure(card, way, mine, given)
        except Exception as error:
            table.add(way.name, failure(error), *[""] * (len(table.head) - 2))
            failed, batches = failed or not way.needs, batches if way.needs else []
            continue
        batches = found.batches or batches  # another library is given the same as transformers just before it
        seconds = statistics.median(found.seconds)
        rates = [len(mine) * mean_s / each for each in found.seconds]
        loop = loop or statistics.median(rates)
        shares = drafting(shape, batches, way.size).share(seconds, *peak) if batches else ()
        table.add(
            way.name,
            spread(rates, ".1f"),
            f"{statistics.median(rates) / loop:.1f}x",
            f"{1000 * statistics.median(found.alone):.0f} ms, {1000 * max(found.alone):.0f} ms",
            gib(found.taken),
            *([f"{share:.2%}" for share in shares] or ["", ""]),
            f"{found.same} of {len(mine)}",
        )
        failed |= found.same < len(mine)
    _beside(model, waves[:24])
    return failed


def _measure(card: Card, way: Way, waves: Sequence[Waveform], given: argparse.Namespace) -> Found:
    card.clear()
    draft = way.load()
    with Batches() as batches:
        said = draft(waves)
    alone = np.tile(babble(1, given.seconds, seed=1)[0], 2)[: round(given.seconds * SAMPLE_RATE)]
    draft([alone])
    return Found(
        [card.seconds(partial(draft, waves)) for _ in range(given.runs)],
        [card.seconds(partial(draft, [alone])) for _ in range(given.alone)],
        card.taken(),
        batches.seen,
        sum(SENTENCE in text for text in said),
    )


def _beside(model: Path, waves: Sequence[Waveform]) -> None:
    """Print what each clip costs beside the device, in the thread that the device then waits for."""
    extractor, settings = open_processor(model).feature_extractor, GuardSettings()
    parts: dict[str, Callable[[Waveform], object]] = {
        "spectrogram, 30 s": lambda wave: spectrograms(extractor, [wave], _WHOLE.samples(len(wave))),
        "spectrogram, right-sized": lambda wave: spectrograms(extractor, [wave], _FITTED.samples(len(wave))),
        "silence gate": lambda wave: guards.is_silent(wave, settings),
        "is it a voice": lambda wave: (guards.pitched(wave), guards.recurs(wave, settings)),
    }
    print()
    table = Table(("on the processor, for each clip", "CPU ms", "clips a second at most"))
    for name, part in parts.items():
        part(waves[0])
        began = time.process_time()
        for wave in waves:
            part(wave)
        each = (time.process_time() - began) / len(waves)
        table.add(name, f"{1000 * each:.1f}", f"{1 / each:.0f}")
