"""npm fails: the person hears why."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.errors import TemporaryError
from daemon.local import node


def test_a_registry_that_cannot_be_reached_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real npm against a port where nobody listens; nothing half-installed stays behind."""
    monkeypatch.setattr(node, "_places", lambda: [tmp_path / "packages"])
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    with pytest.raises(TemporaryError, match=r"ECONNREFUSED|connect") as caught:
        node.packages(lambda _line: None)
    assert "npm.log" in str(caught.value)
    assert "complete log" not in str(caught.value)
    assert not list((tmp_path / "packages").glob("half-*"))
