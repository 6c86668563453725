"""Two processes train one run in one folder: a late one that only stood still, and the one that took the run over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from daemon.asr.training import TrainingError, TrainingResult
from daemon.asr.whisper import finished
from daemon.asr.whisper.windows import Windows

RESULT = TrainingResult(None, False, 1, 1, 1, 1.0, {}, "cpu", "float32", 1, 1)


@dataclass(frozen=True, slots=True)
class Saves:
    """Saves itself as a model and a processor of Hugging Face's do; `then` happens with its half on the disk."""

    words: str
    then: Callable[[], object] = lambda: None

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_text(self.words)
        self.then()


NOTHING = Saves("")
WINDOWS = Windows.whole(30.0)


def _publish(out: Path, words: str, loss: float, then: Callable[[], object] = lambda: None) -> TrainingResult:
    return finished.publish(Saves(words, then), NOTHING, WINDOWS, out, replace(RESULT, model=out / "model", loss=loss))


def _words(out: Path) -> str:
    return (out / "model" / "model.safetensors").read_text()


def test_who_was_first_is_kept_and_both_say_the_same(tmp_path: Path) -> None:
    told: list[TrainingResult] = []
    late = _publish(tmp_path, "late", 2.0, then=lambda: told.append(_publish(tmp_path, "first", 1.0)))
    assert _words(tmp_path) == "first"
    assert [path.name for path in tmp_path.glob(".*")] == []
    assert late.model == told[0].model == tmp_path / "model"
    assert finished.found(tmp_path, resume=True) == late


def test_the_half_of_one_that_lives_is_let_be_and_that_of_one_that_ended_is_not(tmp_path: Path) -> None:
    (tmp_path / ".model.part-of-one-that-was-killed").mkdir()
    halves: list[int] = []

    def another_comes() -> None:
        _publish(tmp_path, "first", 1.0, then=lambda: halves.append(len(list(tmp_path.glob(".model.part-*")))))

    _publish(tmp_path, "late", 2.0, then=another_comes)
    assert halves == [2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "result.json"]


def test_another_refusal_of_the_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("a file has the name")
    with pytest.raises(NotADirectoryError):
        _publish(tmp_path, "whole", 1.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "result.json"]


def test_a_model_of_somebody_elses_is_not_taken_for_a_result(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("theirs")
    with pytest.raises(TrainingError, match="no training here made"):
        finished.found(tmp_path, resume=True)
