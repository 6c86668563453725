"""On a graphics card: drafting and fine-tuning as they are usual, and ours, in one run.

    python benchmarks/gpu.py [--shape small] [--only drafting,training] [--clips 512] [--batch 64] [--learned 64]

    PYTHONPATH=. python3 benchmarks/gpu.py --shape large-v3                     # where Ambara is not installed
    python benchmarks/gpu.py --device cpu --shape micro --clips 6 --batch 2 --loop 2 --learned 4 --at-once 2    # a try

Weights of a published size, random but for the one sentence of 40 tokens that they say to everything (`shapes`), so
that all have equal work. The sounds rise, fall and glide as a voice does; nobody speaks in them. Each shape is meant to
take less than eight minutes on an H200; `--only` halves that.

Drafting needs torch, transformers, numpy and psutil, and no more; ctranslate2 and faster-whisper where they are to be
compared. Fine-tuning needs also accelerate, datasets, evaluate, jiwer, soundfile and soxr. No database, no model hub.

Times are the wall's (on the CPU this process's), from an idle device to an idle device, after a warm-up with the same
work: the median of `--runs`, and behind it the least and the most. Memory is the most that was held at a time, weights
included. "Of the matrices" and "of the bandwidth" are what the work cannot do without (`work`), the padding of its
windows included, over what the card does at best meanwhile: a product of 8192 x 8192 matrices in bfloat16, and a copy
of 2 GiB, measured first.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import gpu_drafting
import torch
from card import Card
from report import heading
from shapes import SHAPES, make

from daemon.asr.whisper.load import hush

PARTS = ("drafting", "training")
NEEDED = ("accelerate", "datasets", "evaluate", "jiwer", "soundfile", "soxr")
"""Modules without which there is no fine-tuning."""
FEWER = {"large-v3": {"clips": 128, "loop": 6, "alone": 5, "learned": 32}}
"""Shape -> what is asked of it otherwise than of smaller ones, or it would take too long."""


def main(given: argparse.Namespace) -> int:
    """Measure and print the tables. Returns 1 if a way fails that has to work, or says other words."""
    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("PyTorch finds no graphics card here. --device cpu tries this out: see --help.")
    if "training" in given.only and (missing := [name for name in NEEDED if find_spec(name) is None]):
        raise SystemExit(f"Fine-tuning needs {', '.join(missing)}: install that, or ask for --only drafting.")
    hush()
    card, shape, failed = Card(given.device), SHAPES[given.shape], False
    if not card.cuda:
        torch.set_num_threads(1)  # several that wait for each other on a busy machine only burn time
    peak = card.ceilings()
    print(f"{heading()}, {card}; whisper-{given.shape}; at best {peak[0] / 1e12:.3g} TFLOP/s and", end=" ")
    print(f"{peak[1] / 1e9:.0f} GB/s", flush=True)
    with tempfile.TemporaryDirectory(prefix="ambara-bench-") as folder:
        model = make(given.shape, Path(folder) / given.shape)
        if "drafting" in given.only:
            failed |= gpu_drafting.compare(card, shape, model, peak, given)
        if "training" in given.only:
            import gpu_training  # it needs more than the other

            failed |= gpu_training.compare(card, shape, model, peak, given)
    return int(failed)


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """What was asked for."""
    known = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    known.add_argument("--shape", choices=SHAPES, default="small")
    known.add_argument("--only", default=",".join(PARTS), help="a part, or several with commas between them")
    known.add_argument("--seconds", type=float, default=8.0, help="of a clip, the half more or less")
    known.add_argument("--runs", type=int, default=3)
    known.add_argument("--clips", type=int, default=512, help="to draft")
    known.add_argument("--batch", type=int, default=64, help="whole windows on the device at once")
    known.add_argument("--loop", type=int, default=12, help="of the clips that many for the origin's loop")
    known.add_argument("--alone", type=int, default=10, help="times that a clip is drafted by itself")
    known.add_argument("--learned", type=int, default=64, help="clips to learn; a multiple of --at-once")
    known.add_argument("--at-once", type=int, default=16, help="clips in a step of training")
    known.set_defaults(**FEWER.get(known.parse_known_args(arguments)[0].shape, {}))
    given = known.parse_args(arguments)
    given.only = given.only.split(",")
    if unknown := set(given.only) - set(PARTS):
        known.error(f"--only knows {' and '.join(PARTS)}, and not {min(unknown)}")
    if given.learned % given.at_once:
        known.error("--learned has to be a multiple of --at-once")
    return given


if __name__ == "__main__":
    sys.exit(main(options()))
