"""One connection to Realtime, used once and thrown away.

The client's own reconnecting is not used: it gives up after a few tries, drops live subscriptions on a late
`phx_close`, and calls nobody when it ends.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable
from typing import Any

from realtime import (
    AsyncRealtimeChannel,
    AsyncRealtimeClient,
    PostgresChangesPayload,
    RealtimePostgresChangesListenEvent,
    RealtimeSubscribeStates,
    SuccessSystemPayload,
)
from websockets.asyncio import client as websocket
from websockets.exceptions import WebSocketException

from daemon.feed import loss
from daemon.feed.canary import Canary
from daemon.feed.doorbell import Doorbell
from daemon.feed.loss import FeedState, Loss
from daemon.feed.settings import FeedSettings
from handlers.events import ClipsChanged, SweepDue

CLOSE_S = 2.0
"""Seconds for a polite goodbye; a client left to itself takes ten."""

_ALL = RealtimePostgresChangesListenEvent.All


class Connection:
    """A client, its one channel under a name that was never used before, and what ends them."""

    def __init__(self, settings: FeedSettings, bell: Doorbell, canary: Canary, proven: Callable[[], None]) -> None:
        self._settings = settings
        self._bell = bell
        self._canary = canary
        self._proven = proven
        self._client = AsyncRealtimeClient(
            f"{settings.url.rstrip('/')}/realtime/v1",
            settings.apikey or settings.key,
            auto_reconnect=False,
            timeout=math.ceil(settings.join_timeout_s),
        )
        # The address has the key in it, and a redirect would carry both to another host: the first try is the last.
        websocket.MAX_REDIRECTS = 1
        loop = asyncio.get_running_loop()
        self._lost: asyncio.Future[Loss] = loop.create_future()
        self._flowing: asyncio.Future[None] = loop.create_future()
        self._socket: websocket.ClientConnection | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._channel: AsyncRealtimeChannel | None = None

    async def run(self) -> Loss:
        """Ring until the connection is of no use any more. Leaves no task and no socket behind."""
        try:
            return await self._run()
        finally:
            await self._dispose()

    async def _run(self) -> Loss:
        await self._client.set_auth(self._settings.key)
        try:
            await self._client.connect()
        except (OSError, WebSocketException) as error:
            return loss.of_handshake(error)
        self._watch_client()
        self._channel = self._bind()
        try:
            async with asyncio.timeout(self._settings.join_timeout_s):
                await self._channel.subscribe(self._guarded(self._on_status))
                await asyncio.wait((self._lost, self._flowing), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            self._lose(Loss(FeedState.DEAF, "Realtime did not confirm in time that changes flow."))
        if not self._lost.done():
            async with asyncio.TaskGroup() as tasks:
                singing = tasks.create_task(self._sing(), name="canary")
                await asyncio.wait((self._lost,))
                singing.cancel()
        return self._lost.result()

    async def _sing(self) -> None:
        self._lose(await self._canary.sing(self._proven))

    def _lose(self, lost: Loss) -> None:
        """The first cause counts; what follows is its consequence."""
        if not self._lost.done():
            self._lost.set_result(lost)

    def _bind(self) -> AsyncRealtimeChannel:
        channel = self._client.channel(f"ambara-{secrets.token_hex(8)}")
        channel.on_system(self._guarded(self._on_system))
        channel.on_postgres_changes(
            _ALL, self._guarded(self._on_clips), table="clips", schema="public", select=["id"]
        ).on_postgres_changes(
            _ALL,
            self._guarded(self._on_own_row),
            table="ambara_daemons",
            schema="public",
            filter=f"worker=eq.{self._settings.worker}",
            select=["worker", "beat"],
        )
        return channel

    def _guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """An exception in a callback would end the client's listener while everything looks well."""

        def call(*arguments: Any) -> None:
            try:
                callback(*arguments)
            except Exception as error:  # see above
                self._lose(Loss(FeedState.CONNECTING, f"A frame could not be handled ({type(error).__name__})."))

        return call

    def _on_status(self, status: RealtimeSubscribeStates, error: Exception | None) -> None:
        # Error frames reach no other callback than this one.
        if status is RealtimeSubscribeStates.SUBSCRIBED:
            self._bell.press(SweepDue())
        else:
            self._lose(loss.of_status(status.value, error))

    def _on_system(self, payload: SuccessSystemPayload) -> None:
        # Said again when the server has rebuilt the subscription: what happened meanwhile was told to nobody.
        self._bell.press(SweepDue())
        if payload.extension == "postgres_changes" and not self._flowing.done():
            self._flowing.set_result(None)

    def _on_clips(self, payload: PostgresChangesPayload) -> None:
        self._bell.press(SweepDue() if payload["data"]["errors"] else ClipsChanged())

    def _on_own_row(self, payload: PostgresChangesPayload) -> None:
        if payload["data"]["errors"]:
            self._bell.press(SweepDue())
        beat = (payload["data"].get("record") or {}).get("beat")
        if isinstance(beat, int):
            self._canary.hear(beat)

    def _watch_client(self) -> None:
        """The client tells nobody that its tasks have ended, nor can they be reached otherwise than as attributes of
        its own; the same holds for the socket, which has to be cut when it does not close."""
        self._socket = self._client._ws_connection
        self._tasks = [task for task in (self._client._listen_task, self._client._heartbeat_task) if task]
        for task in self._tasks:
            task.add_done_callback(self._on_ended)

    def _on_ended(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        name = type(error).__name__ if error else "without an error"
        self._lose(Loss(FeedState.CONNECTING, f"The connection to Realtime ended ({name})."))

    async def _dispose(self) -> None:
        if self._channel:
            self._channel.rejoin_timer.reset()
            for push in (self._channel.join_push, *self._channel.messages_waiting_for_ack.values()):
                push.destroy()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._client.close()
        except TimeoutError:
            pass
        finally:
            if self._socket:
                self._socket.transport.abort()
            for task in self._tasks:
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)
