"""Phoenix channel frames: object framing (vsn 1.0.0) and array framing (vsn 2.0.0), both ways.

Payloads travel outwards as finished JSON text, because numbers in changed rows must keep PostgreSQL's own spelling.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

VERSIONS = ("1.0.0", "2.0.0")
SUBSCRIBED = "Subscribed to PostgreSQL"


@dataclass(frozen=True, slots=True)
class Inbound:
    """A frame from a client."""

    topic: str
    event: str
    payload: dict[str, Any]
    ref: str | None
    join_ref: str | None


@dataclass(frozen=True, slots=True)
class Outbound:
    """A frame to a client. `join_ref` is visible in vsn 2.0.0 only."""

    topic: str
    event: str
    payload: str
    ref: str | None = None
    join_ref: str | None = None
    heartbeat: bool = False
    """True for the reply to a heartbeat, the one frame that a muted bridge still sends."""


def decode(text: str, version: str) -> Inbound | None:
    """The frame in `text`; None for anything that is no frame, which the server ignores."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if version == "2.0.0":
        if not isinstance(raw, list) or len(raw) != 5:
            return None
        join_ref, ref, topic, event, payload = raw
    else:
        if not isinstance(raw, dict):
            return None
        join_ref, ref = raw.get("join_ref"), raw.get("ref")
        topic, event, payload = raw.get("topic"), raw.get("event"), raw.get("payload")
    if not isinstance(topic, str) or not isinstance(event, str):
        return None
    refs_are_text = all(value is None or isinstance(value, str) for value in (ref, join_ref))
    if not refs_are_text:
        return None
    return Inbound(topic, event, payload if isinstance(payload, dict) else {}, ref, join_ref)


def encode(frame: Outbound, version: str) -> str:
    """The text that goes over the wire."""
    if version == "2.0.0":
        head = ",".join(compact(value) for value in (frame.join_ref, frame.ref, frame.topic, frame.event))
        return f"[{head},{frame.payload}]"
    # Without a join_ref in its frames, vsn 1.0.0 puts the join's ref into `ref` of a close.
    return (
        f'{{"ref":{compact(frame.ref)},"event":{compact(frame.event)},'
        f'"topic":{compact(frame.topic)},"payload":{frame.payload}}}'
    )


def compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def reply(to: Inbound, status: str, response: dict[str, Any]) -> Outbound:
    payload = compact({"status": status, "response": response})
    return Outbound(to.topic, "phx_reply", payload, to.ref, to.join_ref, heartbeat=to.topic == "phoenix")


def join_ok(to: Inbound, bindings: Sequence[dict[str, Any]]) -> Outbound:
    return reply(to, "ok", {"postgres_changes": list(bindings)})


def refused(to: Inbound, reason: str) -> Outbound:
    return reply(to, "error", {"reason": reason})


def close(topic: str, join_ref: str | None) -> Outbound:
    """`phx_close`: the join it ends stands in `ref`."""
    return Outbound(topic, "phx_close", "{}", join_ref, join_ref)


def system(topic: str, join_ref: str | None, *, status: str, extension: str, message: str) -> Outbound:
    channel = topic.removeprefix("realtime:")
    payload = {"message": message, "status": status, "extension": extension, "channel": channel}
    return Outbound(topic, "system", compact(payload), None, join_ref)


def presence_state(topic: str, join_ref: str | None) -> Outbound:
    return Outbound(topic, "presence_state", "{}", None, join_ref)


def change(topic: str, data: str, ids: Sequence[int]) -> Outbound:
    """A changed row. It carries no join_ref in either version, so it cannot be tied to one join."""
    return Outbound(topic, "postgres_changes", f'{{"data":{data},"ids":{compact(list(ids))}}}')


def legacy_change(topic: str, kind: str, data: str) -> Outbound:
    """A changed row for a channel that was joined in the manner of the first client generation."""
    return Outbound(topic, kind, data)
