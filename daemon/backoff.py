"""How long to wait after failures in a row."""

from __future__ import annotations

import random


def backoff(failures: int, *, first_s: float = 1.0, most_s: float = 20.0) -> float:
    """Seconds: doubling from `first_s` up to `most_s`, between half and all of it at random, so that many daemons
    that lost the same server do not come back in the same instant. The exponent is clamped: outages last days."""
    return min(most_s, first_s * 2.0 ** min(max(failures - 1, 0), 16)) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
