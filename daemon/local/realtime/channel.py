"""One joined topic of one socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import psycopg

from daemon.local.realtime import catalog, protocol, subscribe
from daemon.local.realtime.bindings import Binding, BindingError
from daemon.local.realtime.faults import Faults
from daemon.local.realtime.poller import Poller
from daemon.local.realtime.protocol import Outbound
from daemon.local.realtime.registry import Registry
from daemon.local.realtime.settings import BridgeSettings
from daemon.local.realtime.subscribe import Target
from daemon.local.realtime.tokens import Claims


class Hub(Protocol):
    """What a channel needs of the bridge."""

    settings: BridgeSettings
    registry: Registry
    poller: Poller
    faults: Faults


class Channel:
    """A live join: its bindings, its token, and its subscription once there is one."""

    def __init__(
        self,
        hub: Hub,
        *,
        topic: str,
        join_ref: str | None,
        bindings: tuple[Binding, ...],
        token: str,
        claims: Claims,
        legacy: bool,
        presence: bool,
        send: Callable[[Outbound], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self.topic = topic
        self.join_ref = join_ref
        self.previous_join_ref: str | None = None
        self.token = token
        self.claims = claims
        self.claims_json = protocol.compact(claims.raw)
        self.targets: tuple[Target, ...] = ()
        self._hub = hub
        self._bindings = bindings
        self._legacy = legacy
        self._presence = presence
        self._send = send
        self._spawn = spawn
        self._task: asyncio.Task[None] | None = None
        self._open = True

    @property
    def role(self) -> str:
        return self.claims.role

    @property
    def replies(self) -> list[dict[str, Any]]:
        """The bindings as the reply to the join echoes them."""
        return [binding.echo() for binding in self._bindings]

    def start(self) -> None:
        """Subscribe; the outcome follows as a `system` frame. Replaces an attempt that is under way."""
        if self._task is not None:
            self._task.cancel()
        self._task = self._spawn(self._subscribe())

    def announce_again(self) -> None:
        self.start()

    def renew(self, token: str, claims: Claims) -> None:
        """A new valid token: the subscription is made again under it, and no change is lost meanwhile."""
        self.token, self.claims, self.claims_json = token, claims, protocol.compact(claims.raw)
        self.start()

    def deliver(self, kind: str, data: str, ids: list[int]) -> None:
        if self._open:
            legacy = self._legacy
            frame = protocol.legacy_change(self.topic, kind, data) if legacy else protocol.change(self.topic, data, ids)
            self._send(frame)

    def fail(self, message: str) -> None:
        """The token is bad or over: an error frame, and the channel is closed."""
        self._system("error", "system", message)
        self.close()

    def close(self) -> None:
        """Tell the client that this join is over."""
        self.forget()
        self._send(protocol.close(self.topic, self.join_ref))

    def forget(self) -> None:
        """Be subscribed no more, without a word."""
        self._open = False
        self._hub.registry.remove(self)
        if self._task is not None:
            self._task.cancel()

    async def _subscribe(self) -> None:
        if self._bindings and not await self._resolve():
            return
        if self._presence:
            self._presence = False
            self._send(protocol.presence_state(self.topic, self.join_ref))

    async def _resolve(self) -> bool:
        hub = self._hub
        while True:
            try:
                async with await catalog.connect(hub.settings, "realtime_subscription_manager") as connection:
                    targets = await subscribe.resolve(
                        connection, hub.settings.publication, self._bindings, self.claims.role
                    )
                break
            except BindingError as error:
                self._system("error", "postgres_changes", str(error))
                return False
            except (psycopg.OperationalError, OSError, TimeoutError):
                self._system("error", "postgres_changes", '{:error, "Too many database timeouts"}')
                await asyncio.sleep(hub.settings.subscribe_retry_s)
        delay = hub.faults.take("delay_system")
        if delay is not None:  # as on the real server nothing flows until then, and what happens is never told
            await asyncio.sleep(delay.delay_s)
        if hub.faults.take("hollow") is None:
            await hub.poller.ensure()
            self.targets = targets
            hub.registry.add(self)
        self._system("ok", "postgres_changes", protocol.SUBSCRIBED)
        return True

    def _system(self, status: str, extension: str, message: str) -> None:
        self._send(protocol.system(self.topic, self.join_ref, status=status, extension=extension, message=message))
