"""Model folders that bring code along: pickles, modules, indexes that lead elsewhere. What they would run is harmless.

Where any of it runs it leaves the file `canary` behind, and does nothing else.
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from daemon.local.tiny import BASE

WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Canary:
    """What must not run."""

    path: Path

    @property
    def code(self) -> str:
        """As a program."""
        return f"open({str(self.path)!r}, 'w').close()"

    @property
    def pickled(self) -> bytes:
        """As a pickle, in which nothing but this stands."""
        return pickle.dumps(_Runs(self.code), protocol=2)

    def sang(self) -> bool:
        """Whether it ran. It can run again afterwards."""
        there = self.path.exists()
        self.path.unlink(missing_ok=True)
        return there

    def save(self, path: Path) -> None:
        """As torch saves weights, between real ones."""
        torch.save({"first": _Runs(self.code), **load_file(BASE / WEIGHTS)}, path)


@dataclass(frozen=True, slots=True)
class _Runs:
    code: str

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return exec, (self.code,)


def edit(file: Path, **changes: Any) -> None:
    """Set keys of a JSON file, which need not be there."""
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | changes))


def module(model: Path, canary: Canary) -> None:
    """`evil.py`, with every class that a configuration may name."""
    kinds = ("WhisperConfig", "WhisperForConditionalGeneration", "WhisperTokenizer", "WhisperFeatureExtractor")
    classes = "".join(f"class Evil{kind}({kind}): pass\n" for kind in (*kinds, "WhisperProcessor"))
    (model / "evil.py").write_text(f"{canary.code}\nfrom transformers import *\n{classes}")


def pickles_only(model: Path, canary: Canary) -> None:
    (model / WEIGHTS).unlink()
    canary.save(model / "pytorch_model.bin")


def pickle_by_another_name(model: Path, canary: Canary) -> None:
    canary.save(model / WEIGHTS)


def index_to_a_pickle(model: Path, canary: Canary, named: str = "pytorch_model.bin") -> None:
    names = load_file(model / WEIGHTS).keys()
    (model / WEIGHTS).rename(model / "model-00001-of-00002.safetensors")
    canary.save(model / named)
    edit(model / _INDEX, metadata={}, weight_map=dict.fromkeys(names, named))


def index_to_the_outside(model: Path, canary: Canary) -> None:
    index_to_a_pickle(model, canary, "../elsewhere.bin")


def adapter_to_another_model(model: Path, canary: Canary) -> None:
    other = Path(shutil.copytree(BASE, model.parent / "other"))
    pickles_only(other, canary)
    edit(model / "adapter_config.json", base_model_name_or_path=str(other), peft_type="LORA", target_modules=["q_proj"])
    (model / "adapter_model.bin").write_bytes(canary.pickled)


def features_by_a_module(model: Path, canary: Canary) -> None:
    module(model, canary)
    (model / "tokenizer.json").rename(model / "tokenizer.elsewhere")
    (model / "vocab.json").write_text("{}")
    edit(model / "tokenizer_config.json", tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.EvilW", None]})
    file = model / "processor_config.json"
    features = {
        "feature_extractor_type": "Evil",
        "auto_map": {"AutoFeatureExtractor": "evil.EvilWhisperFeatureExtractor"},
    }
    edit(
        file,
        processor_class="Evil",
        auto_map={"AutoProcessor": "evil.EvilWhisperProcessor"},
        feature_extractor=features,
    )


def everything_beside(model: Path, canary: Canary) -> None:
    """Whole weights, and beside them all that older libraries would open or import."""
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "rng_state.pth", "extra.pkl"):
        (model / name).write_bytes(canary.pickled)
    module(model, canary)
    (model / "custom_generate").mkdir()
    (model / "custom_generate" / "generate.py").write_text(canary.code)
    kinds = {"AutoConfig": "evil.EvilWhisperConfig", "AutoModel": "evil.EvilWhisperForConditionalGeneration"}
    edit(model / "config.json", auto_map=kinds, architectures=["EvilWhisperForConditionalGeneration"])
    edit(model / "generation_config.json", custom_generate=".")
    edit(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.EvilWhisperTokenizer", None]})


REFUSED: tuple[Callable[[Path, Canary], None], ...] = (
    pickles_only,
    pickle_by_another_name,
    index_to_a_pickle,
    index_to_the_outside,
    adapter_to_another_model,
    features_by_a_module,
)
"""Ways to spoil a copy of a model so that it cannot be opened without what must not run."""


def spoilt(folder: Path, spoil: Callable[[Path, Canary], None], canary: Canary) -> Path:
    """A spoilt copy of the small model, `folder`/name/model."""
    model = Path(shutil.copytree(BASE, folder / spoil.__name__ / "model"))
    spoil(model, canary)
    return model
