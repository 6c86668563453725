"""The tables of the benchmarks get into the document, and nothing else does."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def everything() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_all", HERE / "all.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_table_takes_the_place_of_the_one_before(everything: ModuleType) -> None:
    document = "before\n<!-- one -->\nold\n<!-- /one -->\nbetween\n<!-- two -->\n<!-- /two -->\nafter\n"
    found = everything.put(everything.put(document, "one", "\nnew\n\n"), "two", "| a |")
    assert found == "before\n<!-- one -->\nnew\n<!-- /one -->\nbetween\n<!-- two -->\n| a |\n<!-- /two -->\nafter\n"
    with pytest.raises(ValueError, match="no place for three"):
        everything.put(document, "three", "new")


def test_the_document_has_a_place_for_each_and_each_is_there(everything: ModuleType) -> None:
    document = everything.DOCUMENT.read_text(encoding="utf-8")
    for name, (script, *_) in (everything.SETS | everything.NAMED).items():
        assert everything.put(document, name, "x") != document
        assert (HERE / script).is_file()
