"""The line that `systemctl status` shows."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.headline import headline
from handlers.snapshot import Snapshot

SEEN = Snapshot(live=7, loaded=7, ready=12)


@pytest.mark.parametrize(
    ("seen", "more", "line"),
    [
        (SEEN, {}, "live v7, 12 pending"),
        (None, {"trouble": "Supabase is away"}, "Supabase is away"),
        (SEEN, {"trouble": "Supabase is away"}, "Supabase is away, live v7, 12 pending"),
        (Snapshot(live=None, loaded=1, ready=0), {}, "no version is live, 0 pending"),
        (Snapshot(live=7, loaded=7, ready=1000), {}, "live v7, 1,000+ pending"),
        (SEEN, {"training": (8, {"phase": "training", "step": 43, "steps": 100})},
         "live v7, 12 pending, training v8 43 %"),
        (SEEN, {"training": (8, {"phase": "data"})}, "live v7, 12 pending, gathering data for v8"),
        (SEEN, {"training": (8, {"phase": "saving", "step": 0, "steps": 0})}, "live v7, 12 pending, saving v8"),
        (SEEN, {"feed": "deaf"}, "live v7, 12 pending, Realtime deaf"),
        (SEEN, {"feed": "off"}, "live v7, 12 pending"),
        (SEEN, {"blocked": "v7 is not here."}, "live v7, 12 pending, drafting nothing (v7 is not here)"),
    ],
)  # fmt: skip
def test_it_says_what_the_daemon_does(seen: Snapshot | None, more: dict[str, Any], line: str) -> None:
    assert headline(seen, **more) == line
