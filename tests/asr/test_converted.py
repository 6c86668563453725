"""A model as CTranslate2 reads it is kept, is never another's, and is never needed."""

from __future__ import annotations

import builtins
import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from daemon.asr.transcriber import Draft
from daemon.asr.whisper import load
from daemon.asr.whisper.config import WhisperSettings
from daemon.asr.whisper.halves import half_in
from daemon.local.speech import speak_corpus
from daemon.local.tiny import BASE

AUDIO = [clip.audio for clip in speak_corpus("A", 6, seed=3)]


@pytest.fixture
def settings(tmp_path: Path) -> WhisperSettings:
    """Of a version's folder, as the daemon opens it."""
    model = shutil.copytree(BASE, tmp_path / "0007" / "model")
    return WhisperSettings(
        model=str(model), device="cpu", engine="ctranslate2", converted=str(tmp_path / "0007" / "converted")
    )


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of models whose weights transformers had to read."""
    names: list[str] = []
    inner = load.load_model

    def counted(directory: Path, name: str, *more: object) -> object:
        names.append(name)
        return inner(directory, name, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(load, "load_model", counted)
    return names


def _drafts(settings: WhisperSettings) -> list[Draft]:
    return load.load_transcriber(settings).transcribe(AUDIO)


def _kept(settings: WhisperSettings) -> list[Path]:
    return sorted(Path(settings.converted or "").glob("[0-9a-f]*"))


def test_it_is_converted_once(settings: WhisperSettings, loads: list[str]) -> None:
    """The second time transformers does not read the weights, and everything is as it was."""
    first = load.load_transcriber(settings)
    said = first.transcribe(AUDIO)
    (folder,) = _kept(settings)
    assert folder.stat().st_mode & 0o077 == 0
    again = load.load_transcriber(settings)
    assert loads == [settings.model]
    assert again.transcribe(AUDIO) == said
    assert again.describe() == first.describe()
    assert _drafts(replace(settings, converted=None)) == said
    assert _kept(settings) == [folder]


def _flip(folder: Path) -> None:
    weights = folder / "model.bin"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 0xFF
    weights.write_bytes(data)


def _truncate(folder: Path) -> None:
    os.truncate(folder / "model.bin", 1000)


def _lose(folder: Path) -> None:
    (folder / "made.json").unlink()


def _add(folder: Path) -> None:
    (folder / "shared_vocabulary.json").write_text("[]")


def _forge(folder: Path) -> None:
    """The record of another model, and its files."""
    made = json.loads((folder / "made.json").read_text())
    (folder / "made.json").write_text(json.dumps(made | {"fingerprint": "0" * 64}))


def _no_object(folder: Path) -> None:
    (folder / "made.json").write_text("[1]")


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize("spoil", [_flip, _truncate, _lose, _add, _forge, _no_object, _empty])
def test_what_is_not_as_it_was_is_made_anew(
    settings: WhisperSettings, loads: list[str], spoil: Callable[[Path], None]
) -> None:
    said = _drafts(settings)
    (folder,) = _kept(settings)
    spoil(folder)
    assert _drafts(settings) == said
    assert len(loads) == 2
    assert _drafts(settings) == said
    assert len(loads) == 2
    assert _kept(settings) == [folder]


@pytest.mark.parametrize("other", ["weights", "language", "numbers", "library", "format"])
def test_another_is_never_taken_for_it(
    settings: WhisperSettings, loads: list[str], other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load.load_transcriber(settings)
    changed = settings
    match other:
        case "weights":
            file = Path(settings.model) / "model.safetensors"
            weights = load_file(file)
            weights["model.decoder.layers.0.fc1.bias"] += 1.0
            save_file(weights, file, {"format": "pt"})
        case "language":
            changed = replace(settings, language="fr")
        case "numbers":
            changed = replace(settings, dtype="float32")
        case "library":
            monkeypatch.setattr("daemon.asr.whisper.converted.version", lambda name: f"{name} 99")
        case "format":
            monkeypatch.setattr("daemon.asr.whisper.converted._FORMAT", 99)
    assert load.load_transcriber(changed).describe()["dtype"] == ("float32" if other == "numbers" else "int8")
    assert len(loads) == 2
    assert len(_kept(settings)) == (1 if other in {"library", "format"} else 2), (
        "what another release made is of no use any more"
    )


def test_without_a_place_it_is_loaded_all_the_same(settings: WhisperSettings, loads: list[str]) -> None:
    Path(settings.converted or "").write_text("a file")
    said = _drafts(settings)
    lost = replace(settings, converted=str(Path(settings.model) / "not" / "there"))
    assert _drafts(lost) == said
    assert len(loads) == 2


def test_without_room_nothing_is_kept(
    settings: WhisperSettings, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(BASE)
    full = usage._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full if "0007" in str(path) else usage)
    said = _drafts(settings)
    assert _kept(settings) == []
    assert len(loads) == 2
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(OSError, match="No space left"):
        _drafts(settings)
    monkeypatch.undo()
    assert _drafts(settings) == said


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_where_the_disk_refuses_it_is_loaded_all_the_same(
    settings: WhisperSettings, loads: list[str], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quota shows itself at the first byte, and not before."""
    said = _drafts(replace(settings, converted=None))
    written = builtins.open

    def refuse(file: Any, *more: Any, **others: Any) -> Any:
        if "converted" in str(file) and str(file).endswith("model.bin") and "w" in str(more):
            raise OSError(number, "refused")
        return written(file, *more, **others)

    monkeypatch.setattr(builtins, "open", refuse)
    assert _drafts(settings) == said
    assert len(loads) == 3
    assert _kept(settings) == []


def test_what_does_not_open_is_made_anew(settings: WhisperSettings, loads: list[str]) -> None:
    """Each byte is as it was made, which was wrong."""
    said = _drafts(settings)
    (folder,) = _kept(settings)
    (folder / "model.bin").write_bytes(b"no model")
    made = json.loads((folder / "made.json").read_text())
    made["files"]["model.bin"] = sha256(b"no model").hexdigest()
    (folder / "made.json").write_text(json.dumps(made))
    assert _drafts(settings) == said
    assert _drafts(settings) == said
    assert len(loads) == 2


def test_half_a_conversion_goes_with_its_process(settings: WhisperSettings, loads: list[str]) -> None:
    """Also where there is nothing to convert any more; that of a process that lives stays."""
    place = Path(settings.converted or "")
    load.load_transcriber(settings)
    (place / ".half-left" / "model").mkdir(parents=True)
    with half_in(place, ".half-of-a-living-") as living:
        load.load_transcriber(settings)
        assert living.is_dir()
    assert len(loads) == 1
    assert [path.name for path in place.iterdir()] == [path.name for path in _kept(settings)]
