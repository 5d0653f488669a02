"""A subscriber as dispensing software would write one: signals mirrored into objects."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any, Self

from cardsession.bus.connection import BusError, Connection, Signal, Variant

NAME = "org.cardsession1"
ROOT = "/org/cardsession1"
DEADLINE = 20.0

Properties = dict[str, Any]


def plain(value: Any) -> Any:
    """A value without its variants."""
    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value


def memfd(secret: bytes) -> int:
    """A descriptor that holds a secret."""
    descriptor = os.memfd_create("test")
    os.write(descriptor, secret)
    return descriptor


class Subscriber:
    """Every signal of the daemon in order, and the objects as these signals leave them."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.signals: list[tuple[float, Signal]] = []
        self.objects: dict[str, dict[str, Properties]] = {}

    @classmethod
    async def open(cls, address: str) -> Self:
        """Subscribe first, then list."""
        subscriber = cls(await Connection.open(address))
        await subscriber.connection.subscribe(subscriber._take, sender=NAME)
        call = (NAME, ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
        try:
            reply = await subscriber.connection.call(*call)
        except BusError:
            return subscriber  # the daemon is not there yet: everything will be announced
        subscriber.objects = plain(reply.body[0])
        for _, signal in subscriber.signals:
            if signal.order > reply.order:  # heard while we were waiting for our turn
                subscriber._apply(signal)
        return subscriber

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.connection.close()

    async def call(  # noqa: PLR0913, PLR0917 - a message has this many parts
        self,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: tuple[Any, ...] = (),
        fds: tuple[int, ...] = (),
    ) -> tuple[Any, ...]:
        """Call a method; its reply's body. Descriptors handed in are closed here."""
        name = interface if "." in interface else f"{NAME}.{interface}"
        try:
            reply = await self.connection.call(NAME, path, name, member, signature, body, fds)
        finally:
            for descriptor in fds:
                os.close(descriptor)
        return reply.body

    async def verify(self, session: str, secret: bytes, **options: bool) -> tuple[str, int]:
        """VerifyPin of the primary PIN."""
        variants = {key.replace("_", "-"): Variant("b", value) for key, value in options.items()}
        body = ("user", 0, variants)
        outcome, left = await self.call(
            session, "Session", "VerifyPin", "sha{sv}", body, (memfd(secret),)
        )
        return outcome, left

    async def open_session(self, card: str, **options: Variant) -> str:
        """OpenSession; the session's path."""
        variants = {key.replace("_", "-"): value for key, value in options.items()}
        (path,) = await self.call(card, "Card", "OpenSession", "sa{sv}", ("test", variants))
        return str(path)

    async def refused(self, *arguments: Any, **keywords: Any) -> str:
        """The short name of the error that a call is answered with."""
        try:
            body = await self.call(*arguments, **keywords)
        except BusError as error:
            return error.name.rsplit(".", 1)[1]
        raise AssertionError(f"not refused: {body}")

    async def until(
        self, what: str, condition: Callable[[], Any], seconds: float = DEADLINE
    ) -> Any:
        """Wait until a condition holds; its value."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {seconds:g} s; {self.objects}")
            await asyncio.sleep(0.005)
        return value

    def all(self, interface: str) -> dict[str, Properties]:
        """Properties of every object with that interface, by path."""
        full = f"{NAME}.{interface}"
        return {path: each[full] for path, each in self.objects.items() if full in each}

    def card(self, slot: int = 0) -> tuple[str, Properties] | None:
        """The card in a slot."""
        for path, card in self.all("Card").items():
            reader = self.objects[card["Reader"]][f"{NAME}.Reader"]
            if reader["Name"].endswith(f"0{slot}"):
                return path, card
        return None

    async def card_in_state(self, state: str, slot: int = 0) -> tuple[str, Properties]:
        """Wait for a card in that state."""

        def found() -> tuple[str, Properties] | None:
            card = self.card(slot)
            return card if card and card[1]["State"] == state else None

        result: tuple[str, Properties] = await self.until(f"a card is {state}", found)
        return result

    async def no_card(self, slot: int = 0) -> None:
        """Wait until the slot is empty on the bus."""
        await self.until("no card", lambda: self.card(slot) is None)

    def members(self, path: str | None = None) -> list[str]:
        """Names of the signals so far."""
        return [each.member for _, each in self.signals if path in (None, each.path)]

    def _take(self, signal: Signal) -> None:
        self.signals.append((time.monotonic(), signal))
        self._apply(signal)

    def _apply(self, signal: Signal) -> None:
        body = plain(list(signal.body))
        match signal.member:
            case "InterfacesAdded":
                self.objects[body[0]] = body[1]
            case "InterfacesRemoved":
                self.objects.pop(body[0], None)
            case "PropertiesChanged" if signal.path in self.objects:
                self.objects[signal.path].setdefault(body[0], {}).update(body[1])


async def converged(everybody: list[Subscriber], seconds: float = 3 * DEADLINE) -> None:
    """Wait until each of them made of the signals what somebody who asks is told."""
    first = everybody[0]
    call = (ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
    deadline = time.monotonic() + seconds
    while True:
        truth = plain((await first.call(*call))[0])
        wrong = [
            each.objects
            for each in everybody
            if {path: value for path, value in each.objects.items() if path != ROOT} != truth
        ]
        if not wrong:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"{len(wrong)} know {wrong[0]}, true is {truth}")
        await asyncio.sleep(0.02)
