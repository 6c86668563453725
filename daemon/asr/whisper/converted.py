"""A model as CTranslate2 reads it: converted once, and kept where there is a place for it.

PLACE/0f3a…/              what the library wrote
PLACE/0f3a…/made.json     from what, by what, and sha256 of each file

The name is of all that the conversion depends on, so one of other weights, numbers or libraries is never found. What
is not as it was made is made anew: nothing here is needed, and no disk has to keep it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch

from daemon.asr.digests import digest
from daemon.asr.errors import out_of_memory
from daemon.asr.whisper import eight_bits
from daemon.asr.whisper.engine import Source
from daemon.asr.whisper.halves import half_in, remove_left

T = TypeVar("T")

_MADE = "made.json"
_HALF = ".half-"
_FORMAT = 2
"""Of what `_write` makes of a model. 2: of eight bits seven are used."""
_BYTES = {"int8": 1, "float16": 2, "bfloat16": 2, "float32": 4}
_ROOM = 1.5
"""Times what it will take has to be free, so that others have some left."""


def open_converted(source: Source, dtype: str, read: Callable[[Path], T]) -> tuple[T, int]:
    """What `read` makes of the folder with the converted model, and the number of parameters.

    `read` must need nothing of the folder once it returns. Raises `ModelError` if the weights cannot be used, and the
    system's error if not even the directory for temporary files takes it.
    """
    facts = {"fingerprint": source.fingerprint, "dtype": dtype, **_makers()}
    name = sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    place = source.converted
    if place and (found := _kept(place / name, facts, read)):
        return found
    if place:
        with suppress(OSError), _half(place) as half:
            folder = half / "model"
            parameters = _convert(source, dtype, folder)
            folder.chmod(0o700)
            opened = read(folder)
            _keep(folder, place / name, facts, parameters)
            return opened, parameters
    with TemporaryDirectory(prefix="ambara-", ignore_cleanup_errors=True) as temporary:
        parameters = _convert(source, dtype, folder := Path(temporary) / "model")
        return read(folder), parameters


def _convert(source: Source, dtype: str, folder: Path) -> int:
    """Write the model to a new folder. Returns the number of its parameters.

    Loads it each time: a conversion changes the weights that it is given. Raises `OSError` where there is no room.
    """
    model = source.load(torch.float32)
    parameters: int = sum(parameter.numel() for parameter in model.parameters())
    if shutil.disk_usage(folder.parent).free < _ROOM * _BYTES[dtype] * parameters:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    _write(model, source.tokenizer, dtype, folder)
    return parameters


def _makers() -> dict[str, Any]:
    return {"format": _FORMAT, **{library: version(library) for library in ("ctranslate2", "transformers")}}


def _kept(folder: Path, facts: dict[str, Any], read: Callable[[Path], T]) -> tuple[T, int] | None:
    """What was kept, if it is as it was made. What is not is removed, and what other makers made too."""
    remove_left(folder.parent, _HALF)
    for other in folder.parent.glob("[0-9a-f]*"):
        if _by_others(other, facts["dtype"]):
            shutil.rmtree(other, ignore_errors=True)
    if not folder.exists():
        return None
    if parameters := _whole(folder, facts):
        try:
            return read(folder), parameters
        except RuntimeError as error:
            if out_of_memory(error):
                raise
    shutil.rmtree(folder, ignore_errors=True)
    return None


@contextmanager
def _half(place: Path) -> Iterator[Path]:
    """A folder to convert in. Raises `OSError` where nothing can be kept."""
    place.mkdir(mode=0o700, exist_ok=True)
    with half_in(place, _HALF) as half:
        yield half


def _keep(folder: Path, name: Path, facts: dict[str, Any], parameters: int) -> None:
    """Put it under its name, unless somebody else was faster."""
    with suppress(OSError):
        made = {**facts, "parameters": parameters, "files": _files(folder)}
        (folder / _MADE).write_text(json.dumps(made, indent=1), encoding="utf-8")
        folder.rename(name)


def _by_others(folder: Path, dtype: str) -> bool:
    try:
        made = json.loads((folder / _MADE).read_bytes())
        return made["dtype"] == dtype and any(made[name] != its for name, its in _makers().items())
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _whole(folder: Path, facts: dict[str, Any]) -> int | None:
    """The number of parameters, if what lies there is what was made of these facts, byte for byte."""
    try:
        made = json.loads((folder / _MADE).read_bytes())
        parameters = int(made.pop("parameters"))
        return parameters if made.pop("files") == _files(folder) and made == facts else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _files(folder: Path) -> dict[str, str]:
    """Name -> sha256 of all but the record."""
    found = {}
    for path in folder.iterdir():
        if path.name != _MADE:
            found[path.name] = digest(path)
    return found


def _write(model: Any, tokenizer: Any, dtype: str, folder: Path) -> None:
    """From memory: the library's own converter would open the model's folder anew, with whatever may be in it."""
    from ctranslate2.converters.transformers import WhisperLoader

    with torch.no_grad():
        spec = WhisperLoader()(model, tokenizer)
    spec.validate()
    if dtype == "int8":
        eight_bits.quantize(spec)
    else:
        spec.optimize(dtype)
    folder.mkdir()
    spec.save(str(folder))
