"""The name of a worker."""

from __future__ import annotations

import socket

import pytest

from daemon.app import new_worker
from daemon.feed import FeedSettings


@pytest.mark.parametrize("host", ["box", "gpu_1.example.org", "a,b eq.*", "é" * 300, ""])
def test_any_host_gives_a_name_that_can_be_listened_for(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no two are the same."""
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    names = {new_worker() for _ in range(50)}
    assert len(names) == 50
    for name in names:
        FeedSettings(url="http://127.0.0.1:1", key="k", worker=name)
