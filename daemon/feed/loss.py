"""Why a connection to Realtime is of no use any more, in words, with the remedy where a person has one."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidStatus, SecurityError

from daemon.certificates import distrust

TABLES = ("public.clips", "public.ambara_daemons")
"""What the feed listens to; the publication has to name both."""

_TABLE = re.compile(r"\bschema: (\w+), table: (\w+)")
_REFUSED_BINDING = ("An exception happened", "Error parsing", "No subscription params")
_TOKEN = re.compile(r"token|jwt|signature|`role`", re.IGNORECASE)
_LONGEST = 200
"""Characters of a server's message: some hold pages."""


class FeedState(Enum):
    """What can be expected of the feed."""

    CONNECTING = "connecting"
    """No connection, or one that has not yet proven itself."""
    LIVE = "live"
    """A change of this daemon's own has come back through the whole path."""
    DEAF = "deaf"
    """Connected, and nothing flows."""
    ABSENT = "absent"
    """The server refuses, or has no such subscription: a person has to change something."""


@dataclass(frozen=True, slots=True)
class Loss:
    """The end of a connection."""

    state: FeedState
    reason: str
    """One sentence, with the remedy where there is one."""


def of_handshake(error: Exception) -> Loss:
    """The loss when no connection came about."""
    if isinstance(error, SecurityError):
        return Loss(FeedState.CONNECTING, "SUPABASE_URL answers with a redirect, which Realtime does not follow.")
    if doubt := distrust(error):
        return Loss(FeedState.CONNECTING, doubt[0])
    if not isinstance(error, InvalidStatus):
        return Loss(FeedState.CONNECTING, f"Realtime cannot be reached ({type(error).__name__}).")
    status = error.response.status_code
    if status in (401, 403):
        return _refused_key(_spoken(error.response.body) or f"HTTP {status}")
    if status == 404:
        return Loss(
            FeedState.ABSENT,
            "There is no Realtime at SUPABASE_URL (HTTP 404): check the URL, and that the project runs Realtime.",
        )
    return Loss(FeedState.CONNECTING, f"Realtime answers HTTP {status}.")


def of_status(status: str, error: Exception | None) -> Loss:
    """The loss that the client reports to a subscriber as `status`: CHANNEL_ERROR, TIMED_OUT or CLOSED.

    With CHANNEL_ERROR comes the lost connection, or the server's own frame as JSON text.
    """
    if isinstance(error, ConnectionClosed):
        code = error.rcvd.code if error.rcvd else "no close frame"
        return Loss(FeedState.CONNECTING, f"Realtime closed the connection ({code}).")
    if status == "TIMED_OUT":
        return Loss(FeedState.DEAF, "Realtime did not answer the subscription in time.")
    if status == "CLOSED":
        return Loss(FeedState.CONNECTING, "Realtime closed the subscription.")
    return _of_frame(_frame(str(error)))


def _of_frame(frame: dict[str, Any]) -> Loss:
    # A message is a sentence; a reason is a word, a colon and then anything, the server's internal state included.
    message = str(frame.get("message") or "")
    word = str(frame.get("reason") or "").partition(":")[0][:_LONGEST]
    if "check Realtime is enabled" in message:
        return _unpublished(message)
    if any(mark in message for mark in _REFUSED_BINDING):
        said = message.rpartition("Exception: ")[2][:_LONGEST]
        return Loss(FeedState.ABSENT, f"Realtime refuses the subscription: {said}")
    said = message[:_LONGEST] if frame.get("extension") == "system" else word
    if _TOKEN.search(said):
        return _refused_key(said)
    return Loss(FeedState.DEAF, f"Realtime reports an error ({message[:_LONGEST] or word or 'without a reason'}).")


def _unpublished(message: str) -> Loss:
    named = _TABLE.search(message)
    table = f"{named[1]}.{named[2]}" if named else ""
    missing = table if table in TABLES else ", ".join(TABLES)
    return Loss(
        FeedState.ABSENT,
        f"Realtime does not publish {missing}. Run: alter publication supabase_realtime add table {missing};",
    )


def _refused_key(said: str) -> Loss:
    return Loss(
        FeedState.ABSENT,
        f"Realtime refuses the key ({said}). Set SUPABASE_SERVICE_ROLE_KEY to the project's service_role (secret) key.",
    )


def _spoken(body: bytes) -> str:
    error = _frame(body).get("error")
    return error[:_LONGEST] if isinstance(error, str) else ""


def _frame(text: str | bytes) -> dict[str, Any]:
    """The JSON object in `text`, or an empty one."""
    try:
        frame = json.loads(text)
    except ValueError:
        return {}
    return frame if isinstance(frame, dict) else {}
