"""Who calls, and who has left: a session dies with the connection that opened it."""

from __future__ import annotations

from collections.abc import Callable

from .connection import BusError, Connection, Refusal, Signal, Subscription
from .contract import ErrorName
from .model import Credentials

_DRIVER = "org.freedesktop.DBus"


class Owners:
    """The connections that sessions belong to, each watched while it has one."""

    def __init__(self, connection: Connection, gone: Callable[[str], None]) -> None:
        self._connection = connection
        self._gone = gone
        self._watched: dict[str, Subscription] = {}

    async def credentials(self, name: str) -> Credentials:
        """Who is behind a unique name, as the bus knows it."""
        try:
            return await self._connection.credentials(name)
        except BusError:
            raise Refusal(ErrorName.NOT_AUTHORIZED, "the caller is not known to the bus") from None

    async def watch(self, name: str) -> Credentials:
        """Hear when it leaves. It is watched first and looked up then: whoever left in between
        is not found any more."""
        if name not in self._watched:
            self._watched[name] = await self._connection.subscribe(
                self._changed,
                sender=_DRIVER,
                interface=_DRIVER,
                member="NameOwnerChanged",
                arg0=name,
            )
        try:
            return await self.credentials(name)
        except Refusal:
            await self.forget(name)
            raise

    async def forget(self, name: str) -> None:
        """It has no session any more."""
        subscription = self._watched.pop(name, None)
        if subscription is not None:
            await subscription.close()

    def _changed(self, signal: Signal) -> None:
        name, _, new = signal.body
        if not new:
            self._gone(name)
