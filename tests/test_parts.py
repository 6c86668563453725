"""What is not set of the sizes fits the device."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.parts import pipeline_settings
from daemon.sections import DraftingSettings


@pytest.mark.parametrize(
    ("given", "device", "clips", "seconds", "claimed"),
    [
        ({}, "cpu", 16, 240, 64),
        ({}, "mps", 16, 240, 64),
        ({}, "cuda", 64, 960, 256),
        ({}, "cuda:1", 64, 960, 256),
        ({"batch_clips": 4}, "cpu", 4, 240, 64),
        ({"batch_clips": 4}, "cuda", 4, 960, 256),
        ({"batch_clips": 100}, "cpu", 100, 240, 400),
        ({"batch_clips": 512}, "cpu", 512, 240, 1000),
        ({"claim_clips": 8}, "cuda", 8, 960, 8),
        ({"batch_clips": 2, "batch_seconds": 60, "claim_clips": 3}, "cuda", 2, 60, 3),
    ],
)
def test_a_turn_fits_the_device(given: dict[str, Any], device: str, clips: int, seconds: int, claimed: int) -> None:
    sizes = pipeline_settings(DraftingSettings(**given), {"device": device})
    assert (sizes.batch_clips, sizes.batch_seconds, sizes.claim_clips) == (clips, seconds, claimed)
