"""A model's files: where they are, whether they are a Whisper that may be opened, and what they amount to."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.asr.digests import digest
from daemon.asr.errors import HubAwayError, ModelError
from daemon.asr.whisper.windows import FILE as WINDOWS

_INDEX = "model.safetensors.index.json"
_WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", _INDEX)
_SETTINGS = ("*.json", "*.txt")
"""Configuration, generation settings, tokenizer and feature extractor."""
_ANSWERS_S = 20.0
"""Seconds that the hub may take to say whether it has a model."""
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_TOKENIZER = ("tokenizer.json", "vocab.json")
_FEATURES = ("preprocessor_config.json", "processor_config.json")
_SHAPES_DRAFTS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "normalizer.json",
    *_FEATURES,
    WINDOWS,
)


def find_model(name: str, revision: str | None, *, fetch: bool = True) -> Path:
    """The directory of a model: given as a directory, or fetched from the hub into its cache.

    Without `fetch` only the cache is looked at.
    Raises `ModelError` if there is none, or if it holds no Whisper in safetensors.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        directory = path
    elif path.exists():
        raise ModelError(f"{path} is a file: name the directory that holds the model.")
    elif _looks_local(name):
        raise ModelError(f"There is no model directory at {path}.")
    else:
        directory = _fetch(name, revision) if fetch else _cached(name, revision)
    _check(directory, name)
    return directory


def fingerprint(directory: Path, *facts: str) -> str:
    """sha256 (hex) over the files that shape a draft, with their names, and over `facts` such as the language."""
    total = hashlib.sha256()
    weights = {file.name for pattern in _WEIGHTS for file in directory.glob(pattern)}
    for name in sorted(weights | {name for name in _SHAPES_DRAFTS if (directory / name).is_file()}):
        total.update(f"{name}\0{digest(directory / name)}\0".encode())
    for fact in facts:
        total.update(f"{fact}\0".encode())
    return total.hexdigest()


def _looks_local(name: str) -> bool:
    """A hub id is ``name`` or ``owner/name``; everything else was meant as a path."""
    parts = name.split("/")
    return name.startswith((".", "/", "~")) or "\\" in name or len(parts) > 2 or Path(parts[0]).is_dir()


def _cached(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except Exception as error:  # as below
        raise ModelError(f"{name} is not on this machine yet: the model hub is asked for it at the start.") from error


def offered(name: str, revision: str | None) -> bool:
    """Whether the hub would have to be asked for this model, and has it. Raises `ModelError` if it has not."""
    path = Path(name).expanduser()
    if path.exists() or _looks_local(name):
        return False
    from huggingface_hub import HfApi

    with _plainly(name, revision):
        HfApi().model_info(name, revision=revision, timeout=_ANSWERS_S)
    return True


def _fetch(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    with _plainly(name, revision):
        return Path(snapshot_download(name, revision=revision, allow_patterns=[*_WEIGHTS, *_SETTINGS]))


@contextmanager
def _plainly(name: str, revision: str | None) -> Iterator[None]:
    """What the hub's client raises, as one sentence."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelError(f"The model hub keeps {name} behind its terms: accept them there and set HF_TOKEN.") from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"The model hub has {name}, but no revision {revision} of it.") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ModelError(
            f'The model hub shows no model "{name}": check the name, or set HF_TOKEN if it is private.'
        ) from error
    except Exception as error:  # the hub's client raises its transport's errors as they come
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HubAwayError(
                f"There is no room to fetch {name}: make some, or set HF_HOME to another disk."
            ) from error
        raise HubAwayError(
            f"The model hub cannot be reached and {name} is not in its cache: "
            "go online once, or give the directory of a copy of the model."
        ) from error


def _check(directory: Path, name: str) -> None:
    """Refuse, in one sentence, what is not a Whisper that may be opened."""
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{name} is not a model: its directory holds no config.json.") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"The config.json of {name} cannot be read: {error}.") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "whisper":
        raise ModelError(f"{name} is not a Whisper: its config.json says model_type {json.dumps(kind)}.")
    if not any(any(directory.glob(pattern)) for pattern in _WEIGHTS[:2]):
        pickled = sorted(file.name for file in directory.iterdir() if file.suffix in _PICKLES)
        if pickled:
            raise ModelError(
                f"{name} holds its weights only as {pickled[0]}, a pickle that could run code: "
                "save it again as safetensors."
            )
        raise ModelError(f"{name} holds no weights: model.safetensors is missing.")
    _check_shards(directory, name)
    if (directory / "adapter_config.json").exists():  # it would have another model opened, from wherever it says
        raise ModelError(f"{name} is an adapter beside a model (adapter_config.json): merge it into the weights first.")
    for wanted, what in ((_TOKENIZER, "tokenizer"), (_FEATURES, "feature extractor")):
        if not any((directory / file).is_file() for file in wanted):
            raise ModelError(f"{name} holds no {what} ({' or '.join(wanted)}): save the processor beside the model.")


def _check_shards(directory: Path, name: str) -> None:
    """The index of weights in several files may name any file, anywhere, and what is no safetensors is unpickled."""
    try:
        index = json.loads((directory / _INDEX).read_text(encoding="utf-8"))
        shards = set(index["weight_map"].values())
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"The {_INDEX} of {name} cannot be read: copy the model again.") from error
    present = {file.name for file in directory.glob(_WEIGHTS[1])}
    if foreign := sorted(map(str, shards - present)):
        raise ModelError(
            f"The {_INDEX} of {name} names {foreign[0][:100]}, which is no safetensors beside it: copy the model again."
        )
