"""Both ends of a sleep: a logind that hands out inhibitors and sees when they are let go, and a
machine that writes down what is asked of it."""

from __future__ import annotations

import os
import select
from collections.abc import Awaitable, Callable
from typing import Any, Self

from cardsession.bus.connection import Answer, Call, Connection
from cardsession.bus.logind import LOGIND, MANAGER, PATH, Sleep


class FakeLogind:
    """The other side of bus/logind.py, on a connection of its own."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.asked: list[tuple[Any, ...]] = []
        self._pipes: list[int] = []

    @classmethod
    async def start(cls, connection: Connection) -> Self:
        """Serve, then own the name."""
        logind = cls(connection)
        connection.serve(logind.answer)
        await connection.own_name(LOGIND)
        return logind

    async def stop(self) -> None:
        """Leave the bus; what it knew of inhibitors goes with it."""
        await self.connection.close()
        for each in self._pipes:
            os.close(each)
        self._pipes.clear()

    async def answer(self, call: Call) -> Answer:
        """Inhibit: the write end of a pipe."""
        assert (call.path, call.interface, call.member) == (PATH, MANAGER, "Inhibit")
        self.asked.append(call.body)
        read, write = os.pipe()
        self._pipes.append(read)
        return Answer("h", (0,), (write,))

    @property
    def held(self) -> int:
        """How many inhibitors are held now."""
        ended = select.poll()
        for each in self._pipes:
            ended.register(each, 0)  # a hang-up is always told
        return len(self._pipes) - len(ended.poll(0))

    def tell(self, *, sleep: bool, to: Connection | None = None) -> None:
        """PrepareForSleep."""
        announce(self.connection, sleep=sleep, to=to)


def announce(connection: Connection, *, sleep: bool, to: Connection | None = None) -> None:
    """PrepareForSleep from whatever connection: to everybody, or to one directly."""
    connection.emit(PATH, MANAGER, "PrepareForSleep", "b", (sleep,), to.unique_name if to else None)


class Machine:
    """A sleeper who writes down what is asked of it. `suspend` may be held up, or fail."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.heard: list[str] = []
        self.hold: Callable[[], Awaitable[None]] | None = None
        self.sleep = Sleep(connection, self._suspend, lambda: self.heard.append("resume"))

    async def _suspend(self) -> None:
        self.heard.append("suspend")
        if self.hold is not None:
            await self.hold()
        self.heard.append("suspended")
