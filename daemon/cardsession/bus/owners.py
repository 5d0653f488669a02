"""Who calls, and who has left: a session dies with the connection that opened it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from .connection import BusError, Connection, Refusal, Signal, Subscription
from .contract import ErrorName
from .model import Credentials

_DRIVER = "org.freedesktop.DBus"


@dataclass(slots=True)
class _Watch:
    """One connection that is watched: how many reasons there are, and whether it left."""

    subscribed: asyncio.Task[Subscription]
    reasons: int = 0
    gone: bool = False


class Owners:
    """The connections that sessions belong to, each watched while there is a reason.

    Every OpenSession under way is a reason, and every session: what one of them gives up
    another may still need.
    """

    def __init__(self, connection: Connection, gone: Callable[[str], None]) -> None:
        self._connection = connection
        self._gone = gone
        self._watched: dict[str, _Watch] = {}

    async def credentials(self, name: str) -> Credentials:
        """Who is behind a unique name, as the bus knows it."""
        try:
            return await self._connection.credentials(name)
        except BusError:
            raise Refusal(ErrorName.NOT_AUTHORIZED, "the caller is not known to the bus") from None

    async def hold(self, name: str) -> Credentials:
        """One more reason to hear when it leaves. It is watched first and looked up then: whoever
        left in between is not found any more. Raises Refusal, with no reason added."""
        watch = self._watched.get(name)
        if watch is None:
            subscribing = asyncio.get_running_loop().create_task(self._subscribe(name))
            watch = self._watched[name] = _Watch(subscribing)
        watch.reasons += 1
        try:
            await asyncio.shield(watch.subscribed)
            found = await self.credentials(name)
        except BusError:
            await self.release(name)
            raise Refusal(ErrorName.LIMITS_EXCEEDED, "the bus watches no more callers") from None
        except BaseException:
            await self.release(name)
            raise
        return found

    def left(self, name: str) -> bool:
        """Whether a watched connection has left since."""
        watch = self._watched.get(name)
        return watch is None or watch.gone

    async def release(self, name: str) -> None:
        """One reason less; without any it is not watched any more."""
        watch = self._watched.get(name)
        if watch is None:
            return
        watch.reasons -= 1
        if watch.reasons <= 0:
            del self._watched[name]
            done, _ = await asyncio.wait([watch.subscribed])
            if not watch.subscribed.cancelled() and watch.subscribed.exception() is None:
                await done.pop().result().close()

    async def _subscribe(self, name: str) -> Subscription:
        return await self._connection.subscribe(
            self._changed,
            sender=_DRIVER,
            interface=_DRIVER,
            member="NameOwnerChanged",
            arg0=name,
        )

    def _changed(self, signal: Signal) -> None:
        name, _, new = signal.body
        watch = self._watched.get(name)
        if watch is not None and not new:
            watch.gone = True
            self._gone(name)
