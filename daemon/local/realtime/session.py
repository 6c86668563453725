"""One websocket: reads frames, answers them, sends what its channels have to say, and watches the clocks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from daemon.local.realtime import bindings, protocol, tokens
from daemon.local.realtime.channel import Channel, Hub
from daemon.local.realtime.outbox import Outbox, OutboxFullError
from daemon.local.realtime.protocol import Inbound, Outbound
from daemon.local.realtime.wire import Wire

_CLOSE_TIMEOUT_S = 2.0


class Session:
    """A connected client and its channels."""

    def __init__(self, hub: Hub, websocket: WebSocket, wire: Wire, *, version: str, apikey: str) -> None:
        self.channels: dict[str, Channel] = {}
        self.wire = wire
        self._hub = hub
        self._websocket = websocket
        self._version = version
        self._apikey = apikey
        settings = hub.settings
        self._outbox = Outbox(max_frames=settings.max_queue_frames, max_bytes=settings.max_queue_bytes)
        self._gate = asyncio.Lock()
        self._tasks = asyncio.TaskGroup()
        self._children: set[asyncio.Task[None]] = set()
        self._channelless_since = time.monotonic()
        self._ended = False

    async def run(self) -> None:
        """Until either side ends the connection. The handshake is already accepted."""
        async with self._tasks:
            self._spawn(self._write())
            self._spawn(self._watch())
            try:
                await self._read()
            finally:
                # Nobody may start new work for this socket from here on.
                self._ended = True
                for channel in self.channels.values():
                    channel.forget()
                for child in tuple(self._children):
                    child.cancel()

    def close_soon(self, code: int) -> None:
        if not self._ended:
            self._spawn(self._close(code))

    def stale_close(self) -> None:
        """A `phx_close` for a join that is over, to every channel; the channels themselves live on."""
        for channel in self.channels.values():
            self._send(protocol.close(channel.topic, channel.previous_join_ref or "0"))

    def expire_tokens(self) -> None:
        for channel in tuple(self.channels.values()):
            self._fail(channel, tokens.expired_message(0))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._tasks.create_task(work)
        self._children.add(task)
        task.add_done_callback(self._children.discard)
        return task

    # What goes out.

    def _send(self, frame: Outbound) -> None:
        faults = self._hub.faults
        if not frame.heartbeat and faults.take("mute"):
            return
        late = faults.take("delay_frames")
        try:
            self._outbox.put(protocol.encode(frame, self._version), delay_s=late.delay_s if late else 0.0)
        except OutboxFullError:
            self.wire.cut()

    async def _write(self) -> None:
        try:
            while True:
                text = await self._outbox.get()
                await self._hub.faults.over("freeze")
                async with self._gate:
                    await self._websocket.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            # The connection ended first; the reader hears of it too.
            return

    async def _close(self, code: int) -> None:
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._websocket.close(code)
        except (TimeoutError, RuntimeError, WebSocketDisconnect):
            self.wire.cut()

    async def _watch(self) -> None:
        """Idle socket, socket without a channel, token that runs out, frozen bridge."""
        settings, faults = self._hub.settings, self._hub.faults
        while True:
            if faults.active("freeze"):
                self.wire.freeze()
                await faults.over("freeze")
                self.wire.thaw()
            now = time.monotonic()
            waits = [1.0, self.wire.last_received + settings.idle_timeout_s - now]
            if waits[-1] <= 0:
                await self._close(1000)
                return
            if not self.channels:
                waits.append(self._channelless_since + settings.no_channel_timeout_s - now)
                if waits[-1] <= 0:
                    self.wire.cut()
                    return
            for channel in tuple(self.channels.values()):
                past = channel.claims.seconds_past_expiry()
                if past >= 0:
                    self._fail(channel, tokens.expired_message(past))
                else:
                    waits.append(-past)
            await faults.wait_for_change(max(0.0, min(waits)))

    # What comes in.

    async def _read(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            await self._hub.faults.over("freeze")
            frame = protocol.decode(message.get("text") or "", self._version)
            if frame is not None:
                await self._handle(frame)

    async def _handle(self, frame: Inbound) -> None:
        if frame.topic == "phoenix":
            if frame.event == "heartbeat":
                self._send(protocol.reply(frame, "ok", {}))
            return
        if frame.event == "phx_join":
            await self._join(frame)
            return
        channel = self.channels.get(frame.topic)
        if channel is None:
            leave = frame.event == "phx_leave"
            self._send(protocol.reply(frame, "ok", {}) if leave else protocol.refused(frame, "unmatched topic"))
        elif frame.join_ref not in (None, channel.join_ref):
            return
        elif frame.event == "phx_leave":
            self._send(protocol.reply(frame, "ok", {}))
            self._drop(channel)
            channel.close()
        elif frame.event == "access_token":
            self._renew(channel, frame.payload.get("access_token"))

    def _renew(self, channel: Channel, token: object) -> None:
        if token is None or token == channel.token or str(token).startswith("sb_"):
            return
        try:
            claims = tokens.check(token, self._hub.settings.jwt_secret)
        except tokens.TokenError as error:
            self._fail(channel, error.push)
            return
        channel.renew(str(token), claims)

    async def _join(self, frame: Inbound) -> None:
        if not frame.topic.startswith("realtime:"):
            self._send(protocol.refused(frame, "unmatched topic"))
            return
        legacy = "config" not in frame.payload and frame.topic.count(":") >= 2
        token = frame.payload.get("user_token" if legacy else "access_token")
        if token is None or str(token).startswith("sb_"):
            token = self._apikey
        try:
            channel = self._open_channel(frame, token, legacy=legacy)
        except (tokens.TokenError, ValueError) as error:
            async with self._gate:
                await asyncio.sleep(self._hub.settings.join_error_delay_s)
            self._send(protocol.refused(frame, error.join if isinstance(error, tokens.TokenError) else str(error)))
            return
        old = self.channels.pop(frame.topic, None)
        self.channels[frame.topic] = channel
        frames = []
        if self._hub.faults.take("lose_join_replies") is None:
            frames.append(protocol.join_ok(frame, channel.replies))
        if old is not None:
            channel.previous_join_ref = old.join_ref
            old.forget()
            frames.append(protocol.close(old.topic, old.join_ref))
        late = self._hub.faults.take("delay_join_replies")
        if late is not None:
            self._spawn(self._announce_late(channel, frames, late.delay_s))
            return
        self._announce(channel, frames)

    def _open_channel(self, frame: Inbound, token: object, *, legacy: bool) -> Channel:
        """Raises `TokenError`, or ValueError with the reason for the reply."""
        name = frame.topic.removeprefix("realtime:")
        if not name:
            raise ValueError("TopicNameRequired: You must provide a topic name")
        claims = tokens.check(token, self._hub.settings.jwt_secret)
        if len(self.channels) >= self._hub.settings.max_channels and frame.topic not in self.channels:
            raise ValueError("ChannelRateLimitReached: Too many channels")
        config = frame.payload.get("config")
        presence = config.get("presence") if isinstance(config, dict) else None
        return Channel(
            self._hub,
            topic=frame.topic,
            join_ref=frame.join_ref,
            bindings=bindings.from_topic(name) if legacy else bindings.from_join(frame.payload),
            token=str(token),
            claims=claims,
            legacy=legacy,
            presence=isinstance(presence, dict) and presence.get("enabled") is True,
            send=self._send,
            spawn=self._spawn,
        )

    def _announce(self, channel: Channel, frames: list[Outbound]) -> None:
        for frame in frames:
            self._send(frame)
        if self.channels.get(channel.topic) is channel:
            channel.start()

    async def _announce_late(self, channel: Channel, frames: list[Outbound], delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        self._announce(channel, frames)

    def _fail(self, channel: Channel, message: str) -> None:
        self._drop(channel)
        channel.fail(message)

    def _drop(self, channel: Channel) -> None:
        self.channels.pop(channel.topic, None)
        self._channelless_since = time.monotonic()
