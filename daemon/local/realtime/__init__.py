"""A Realtime server for the embedded stack: Supabase's `postgres_changes` over websockets, and only that.

It keeps the real server's promises and, as important, its failings: changes are sent at most once, with no replay and
no word about what was lost.
"""

from __future__ import annotations

from daemon.local.realtime.bridge import RealtimeBridge
from daemon.local.realtime.faults import Faults
from daemon.local.realtime.settings import BridgeSettings
from daemon.local.realtime.wire import uvicorn_options

__all__ = ["BridgeSettings", "Faults", "RealtimeBridge", "uvicorn_options"]
