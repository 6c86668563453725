"""Realtime as a doorbell: changes become rings, and nothing else is ever read from them.

Realtime delivers at most once and does not say what it lost. So a lost ring may delay work and can never lose it: the
database is the queue, and every (re)subscription rings for a sweep.
"""

from __future__ import annotations

from daemon.feed.loss import FeedState
from daemon.feed.settings import FeedSettings
from daemon.feed.supervisor import Feed

__all__ = ["Feed", "FeedSettings", "FeedState"]
