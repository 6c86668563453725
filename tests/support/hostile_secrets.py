"""A search for a key wherever it must not be: output, files, command lines, environments; as it is and coded.

It knows nothing of the daemon's own redaction, which is one of the things that it judges.
"""

from __future__ import annotations

import base64
import contextlib
import json
import mmap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import psutil

PIECE = 12
"""Characters. Of what is secret in a key, every part of 23 or more is found: it holds one of the pieces whole."""


def leaks(
    key: str,
    *,
    texts: Mapping[str, str | bytes] | None = None,
    paths: Iterable[Path] = (),
    pids: Iterable[int] = (),
    environs: Iterable[int] = (),
) -> list[str]:
    """Where `key` is found, and in which shape; never the key itself.

    Args:
        key: of a JWT only the signature is secret, of another key all behind its marked beginning.
        texts: name -> what was said there: a log, an exception, a page.
        paths: files, core files too, and directories with all that is below; names count as well as contents.
        pids: processes, by their command line, their threads' names and those of all that descend from them, and by
            the environment of those that descend from them.
        environs: processes whose own environment must not hold it either.
    """
    shapes = _shapes(key)
    searched = (*_said(texts or {}), *_of_processes(pids), *_of_environments(environs))
    found = [f"{shape} in {where}" for where, content in searched for shape in _in(content, shapes)]
    return found + [f"{shape} in {where}" for path in paths for where, shape in _below(path, shapes)]


def _shapes(key: str) -> dict[bytes, str]:
    """What to look for -> the shape in which it is the key."""
    secret = key.rpartition(".")[2] if key.count(".") == 2 else key.removeprefix("sb_secret_")
    raw = secret.encode()
    assert len(raw) >= PIECE, "too short to tell from innocent words"
    forms = {
        "raw": {secret},
        "escaped": {json.dumps(secret)[1:-1], repr(secret)[1:-1]},
        "URL-encoded": {quote(secret, safe=""), quote(quote(secret, safe=""), safe="")},
        "hexadecimal": {raw.hex(), raw.hex().upper()},
        "reversed": {secret[::-1]},
    }
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")
        # The first and the last character may hold bits of the neighbours too.
        whole = coded[(0, 2, 3)[before] : len(coded) - 1]
        forms[f"base64 ({before} bytes on)"] = {whole, whole.replace("+", "-").replace("/", "_")}
    shapes: dict[bytes, str] = {}
    for name, some in forms.items():
        for form in some:
            shapes = {**dict.fromkeys(_pieces(form), name), **shapes}  # what is raw already counts as raw
    return shapes


def _pieces(form: str) -> list[bytes]:
    starts = [*range(0, len(form) - PIECE, PIECE), len(form) - PIECE]
    return [form[start : start + PIECE].encode() for start in starts]


def _in(content: bytes | mmap.mmap, shapes: Mapping[bytes, str]) -> list[str]:
    return sorted({shape for piece, shape in shapes.items() if content.find(piece) >= 0})


def _said(texts: Mapping[str, str | bytes]) -> Iterator[tuple[str, bytes]]:
    for name, text in texts.items():
        yield name, text if isinstance(text, bytes) else text.encode(errors="surrogateescape")


def _of_processes(pids: Iterable[int]) -> Iterator[tuple[str, bytes]]:
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            below = [child.pid for child in psutil.Process(pid).children(recursive=True)]
            for each in (pid, *below):
                yield from _of_process(each, "cmdline", "comm", "status")
            yield from _of_environments(below)


def _of_environments(pids: Iterable[int]) -> Iterator[tuple[str, bytes]]:
    for pid in pids:
        yield from _of_process(pid, "environ")


def _of_process(pid: int, *names: str) -> Iterator[tuple[str, bytes]]:
    for name in names:
        # Ended meanwhile: whoever wants to see a child holds it alive. What its own user may not read shows nothing.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            yield f"/proc/{pid}/{name}", Path(f"/proc/{pid}/{name}").read_bytes()


def _below(top: Path, shapes: Mapping[bytes, str]) -> Iterator[tuple[str, str]]:
    """Place and shape, of a file or of all in a directory."""
    for path in (top, *top.rglob("*")) if top.is_dir() else (top,):
        yield from ((f"the name of {path.parent}/*", shape) for shape in _in(path.name.encode(), shapes))
        # A file may go while a daemon works; one that may not be read is an error of the test.
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and not path.is_symlink() and path.stat().st_size:
                with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    yield from ((str(path), shape) for shape in _in(content, shapes))
