"""Replays a capture of the real Realtime server against the bridge: the same frames and SQL, then the same answers.

A capture has one JSON object per line: `{"t": seconds, "dir": "send" | "recv" | "note", "frame": ...}`. What has to
differ is compared by rule: binding ids and random uuids must map one to one, moments must have the same form, long
strings the same length. Changes and other frames of a topic are two streams, each of which must be in order.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.local.realtime_support import Client, Served, bind, eventually, token

CAPTURES = Path(__file__).parent.parent / "captures"
_CONTROL = {"phx_reply", "phx_close", "system", "presence_state"}
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_SHORTENED = re.compile(r"(.*)…<(\d+) chars>", re.DOTALL)
_EXPIRED = re.compile(r"(.*Token has expired )(\d+)( seconds ago)")
_DAY_OF_CAPTURE = "2026-11-22T"
_MOMENTS = {
    "Z": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"),
    "0": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,5}[1-9]|\.[1-9])?\+00:00"),
}


def read_lines(name: str) -> list[str]:
    return (CAPTURES / f"{name}.jsonl").read_text().rstrip("\n").split("\n")


class Likeness:
    """Compares what was captured with what the bridge sends; remembers which id stands for which."""

    def __init__(self) -> None:
        self._there: dict[Any, Any] = {}
        self._here: dict[Any, Any] = {}

    def check(self, expected: Any, actual: Any, path: str = "") -> None:
        if isinstance(expected, dict):
            expected = {key: value for key, value in expected.items() if key != "_frame_bytes"}
            assert isinstance(actual, dict), path
            assert sorted(expected) == sorted(actual), (path, expected, actual)
            for key, value in expected.items():
                self.check(value, actual[key], f"{path}.{key}")
        elif isinstance(expected, list):
            assert isinstance(actual, list), path
            assert len(expected) == len(actual), (path, expected, actual)
            for value, other in zip(expected, actual, strict=True):
                self.check(value, other, f"{path}[]")
        elif isinstance(expected, int) and path.endswith((".ids[]", ".postgres_changes[].id")):
            self._same(expected, actual, path)
        elif isinstance(expected, str):
            self._text(expected, actual, path)
        else:
            assert (type(expected), expected) == (type(actual), actual), path

    def _text(self, expected: str, actual: Any, path: str) -> None:
        assert isinstance(actual, str), (path, expected, actual)
        if shortened := _SHORTENED.fullmatch(expected):
            if path.endswith("message"):
                # The end of the one long message is in no capture.
                assert actual.startswith(shortened[1]), (path, actual)
            else:
                assert len(actual) == int(shortened[2]), (path, expected, actual)
        elif expired := _EXPIRED.fullmatch(expected):
            other = _EXPIRED.fullmatch(actual)
            assert other is not None, actual
            assert (expired[1], expired[3]) == (other[1], other[3])
            assert abs(int(expired[2]) - int(other[2])) <= 5, (expected, actual)
        elif expected.startswith(_DAY_OF_CAPTURE):
            assert _MOMENTS[expected[-1]].fullmatch(actual), (path, expected, actual)
        elif _UUID.fullmatch(expected) and not expected.startswith("00000000"):
            assert _UUID.fullmatch(actual), (path, actual)
            self._same(expected, actual, path)
        else:
            assert expected == actual, path

    def _same(self, expected: Any, actual: Any, path: str) -> None:
        assert self._there.setdefault(expected, actual) == actual, (path, expected, actual)
        assert self._here.setdefault(actual, expected) == expected, (path, expected, actual)


class Replay:
    """One run of one capture."""

    def __init__(
        self,
        served: Served,
        db: psycopg.Connection[tuple[Any, ...]],
        *,
        keys: Mapping[str, str] | None = None,
        statements: Mapping[str, str] | None = None,
    ) -> None:
        self._served = served
        self._db = db
        self._keys = {f"{role}-jwt": token(role) for role in ("service_role", "anon", "authenticated")} | dict(
            keys or {}
        )
        self._statements = statements or {}
        self._likeness = Likeness()
        self._run_id = str(uuid4())
        self._note = ""
        self._latest: Client | None = None
        self._arrays = False
        self._by_topic: dict[str, Client] = {}
        self._waiting: dict[tuple[str, bool], deque[Any]] = {}
        self.refusals: list[dict[str, Any]] = []

    async def run(self, name: str, *, until: str | None = None) -> None:
        """Raises AssertionError at the first difference; `until` names the note at which to stop."""
        lines = [json.loads(line) for line in read_lines(name)]
        async with AsyncExitStack() as stack:
            if not any("http" in line["frame"] for line in lines if line["dir"] == "send"):
                # A capture that goes on where another one ended: the channel is already joined.
                await self._connect(stack, "GET /realtime/v1/websocket?apikey=<service_role-jwt> HTTP/1.1")
                assert self._latest is not None
                await self._latest.joined(bind())
                self._by_topic["realtime:clips"] = self._latest
            for line in lines:
                frame, direction = line["frame"], line["dir"]
                if direction == "note" and until is not None and frame.startswith(until):
                    break
                await self._step(stack, direction, frame)
            await self._nothing_left()

    async def _step(self, stack: AsyncExitStack, direction: str, frame: Any) -> None:
        if direction == "note":
            self._take_note(frame)
        elif isinstance(frame, dict) and "ws" in frame:
            return
        elif direction == "send" and "http" in frame:
            await self._connect(stack, frame["http"])
        elif direction == "send":
            await self._send(frame)
        elif "http" in frame:
            self._check_handshake(frame)
        else:
            await self._receive(frame)

    def _take_note(self, note: str) -> None:
        self._note = note
        if not note.startswith("SQL "):
            return
        known = [full for start, full in self._statements.items() if note.startswith(f"SQL {start}")]
        statement = known[0] if known else note.removeprefix("SQL ")
        for part in statement.split(";") if "…" not in statement else [statement]:
            cursor = self._db.execute(part.replace("%s", f"'{self._run_id}'").encode())
            if "returning id" in part:
                row = cursor.fetchone()
                assert row is not None
                self._run_id = str(row[0])

    async def _connect(self, stack: AsyncExitStack, request: str) -> None:
        await self._nothing_left()
        self._arrays = "vsn=2" in request
        path = self._with_tokens(request.removeprefix("GET ").removesuffix(" HTTP/1.1"))
        headers = {"x-api-key": token()} if "x-api-key" in self._note else None
        try:
            socket = await stack.enter_async_context(
                connect(
                    f"ws://127.0.0.1:{self._served.port}{path}",
                    additional_headers=headers,
                    compression=None,
                    ping_interval=None,
                    max_size=None,
                )
            )
        except InvalidStatus as error:
            body = (error.response.body or b"").decode()
            self.refusals.append(
                {
                    "http": f"HTTP/1.1 {error.response.status_code} {error.response.reason_phrase}",
                    "content-type": error.response.headers.get("content-type"),
                    "body": body,
                }
            )
        else:
            self._latest = Client(socket)

    def _check_handshake(self, expected: dict[str, Any]) -> None:
        if expected["http"].startswith("HTTP/1.1 101"):
            assert self._latest is not None
        else:
            assert self.refusals.pop() == expected, self._note

    async def _nothing_left(self) -> None:
        """The bridge has said nothing on the latest socket that the real server did not say."""
        await self._settle()
        if self._latest is None:
            return
        objects = '{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"last"}'
        await self._latest.send('[null,"last","phoenix","heartbeat",{}]' if self._arrays else objects)
        while _stream(frame := await self._latest.receive())[0] != "phoenix":
            self._waiting.setdefault(_stream(frame), deque()).append(frame)
        assert not any(self._waiting.values()), self._waiting

    async def _send(self, frame: Any) -> None:
        assert self._latest is not None
        if isinstance(frame, dict) and set(frame) == {"text"}:
            await self._latest.send(frame["text"])
            return
        topic, event = (frame[2], frame[3]) if isinstance(frame, list) and len(frame) == 5 else _head(frame)
        if event == "phx_join":
            await self._settle()
            self._by_topic[topic] = self._latest
        await self._by_topic.get(topic, self._latest).send(self._with_tokens(json.dumps(frame)))

    async def _settle(self) -> None:
        """Until the bridge has read what was committed so far, which took the real client's pauses."""
        row = self._db.execute("select pg_current_wal_lsn()").fetchone()
        await eventually(
            lambda: (
                self._db.execute(
                    "select coalesce(bool_and(confirmed_flush_lsn >= %s), true) from pg_replication_slots", row
                ).fetchone()
                == (True,)
            )
        )

    async def _receive(self, expected: Any) -> None:
        assert self._latest is not None
        topic, control = _stream(expected)
        queue = self._waiting.setdefault((topic, control), deque())
        while not queue:
            frame = await self._by_topic.get(topic, self._latest).receive()
            self._waiting.setdefault(_stream(frame), deque()).append(frame)
        self._likeness.check(expected, queue.popleft())

    def _with_tokens(self, text: str) -> str:
        return re.sub(r"<([^<>]*jwt[^<>]*)>", lambda match: self._keys.get(match[1]) or self._keys[self._note], text)


def _head(frame: Any) -> tuple[str, str]:
    return (frame.get("topic", ""), frame.get("event", "")) if isinstance(frame, dict) else ("", "")


def _stream(frame: Any) -> tuple[str, bool]:
    topic, event = (frame[2], frame[3]) if isinstance(frame, list) else _head(frame)
    return topic, event in _CONTROL
