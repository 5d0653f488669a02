"""The real service over a connection that leads nowhere, before desks that are told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cardsession.bus import contract
from cardsession.bus.connection import Variant
from cardsession.bus.service import Service
from cardsession.bus.values import Constants
from cardsession.core.policy import Removal
from fakes.connection import FakeConnection, Sent
from fakes.requests import CARD, OWNER, READER, SESSION, FakeRequests

from .util import CANARY

CONSTANTS = Constants("1.2", Removal.LOCK, 900, 43_200)
NEW = "11112222"
CARD_1, SESSION_1 = f"{contract.CARDS}/1", f"{contract.SESSIONS}/1"
PATHS = {contract.MANAGER: contract.ROOT, contract.CARD: CARD_1, contract.SESSION: SESSION_1,
         contract.DIAGNOSTICS: contract.ROOT}  # fmt: skip
SHA256 = bytes(range(32))
SAMPLES: dict[str, tuple[Any, ...]] = {
    "ListReaders": (),
    "ListSessions": (),
    "CheckFunction": ("claim", "/"),
    "OpenSession": ("test", {}),
    "ListCertificates": (),
    "GetCertificate": ("signature",),
    "VerifyPin": ("user", 0, {}),
    "QueryPin": ("user",),
    "ChangePin": ("user", 0, 1, {}),
    "UnblockPin": ("user", 0, 1, {}),
    "Sign": ("signature", "rsa-pkcs1-sha256", SHA256, {}),
    "SignWithPin": ("signature", "rsa-pkcs1-sha256", SHA256, 0, {}),
    "Transmit": (b"\x00\x84\x00\x00\x08", {}),
    "SetContext": ({"ods-code": "FA123"},),
    "TakeLifetime": (),
    "KeepAlive": (),
    "Lock": (),
    "Close": (),
}
"""Arguments that are in order, of every method but Diagnostics'."""
PIN_METHODS = ("VerifyPin", "ChangePin", "UnblockPin", "SignWithPin")
OWNERS = tuple(contract.interface(contract.SESSION).methods)
LAST_TRY = {"spend-last-try": Variant("b", True)}


def interface_of(member: str) -> str:
    """Whose method it is."""
    return next(name for name in PATHS if member in contract.interface(name).methods)


def secrets_of(member: str) -> int:
    """How many secrets a method takes."""
    return contract.method(interface_of(member), member).in_signature.count("h")


def with_options(member: str, options: dict[str, Variant]) -> tuple[Any, ...]:
    """The sample's arguments, other options."""
    return (*SAMPLES[member][:-1], options)


@contextmanager
def pipes(*texts: str | None) -> Iterator[tuple[int, ...]]:
    """Reading ends, which the service closes; None is a pipe that nobody writes to."""
    sources, sinks = [], []
    for each in texts:
        source, sink = os.pipe()
        sources.append(source)
        if each is None:
            sinks.append(sink)
        else:
            os.write(sink, each.encode())
            os.close(sink)
    try:
        yield tuple(sources)
    finally:
        for sink in sinks:
            os.close(sink)


async def settle() -> None:
    """Let everything happen that can happen without time going by."""
    for _ in range(30):
        await asyncio.sleep(0)


class Served:
    """The service, and what a caller may do with it."""

    def __init__(self) -> None:
        self.connection = FakeConnection()
        self.requests = FakeRequests()
        self.service = Service(self.connection, CONSTANTS)  # type: ignore[arg-type]
        self.requests.publisher = self.service

    @classmethod
    async def start(cls, spend_last_try: str = "caller") -> Served:
        """With a reader, a card and a session on it, as everybody was told already."""
        made = cls()
        await made.service.start(made.requests, spend_last_try=spend_last_try)
        for facts in (READER, CARD, SESSION):
            made.service.show(facts)
        await settle()
        made.connection.sent.clear()
        return made

    def send(
        self,
        member: str,
        *body: Any,
        fds: tuple[int, ...] = (),
        sender: str = OWNER,
        path: str | None = None,
    ) -> None:
        """A call arrives; what left before is forgotten."""
        self.connection.sent.clear()
        interface = interface_of(member)
        signature = contract.method(interface, member).in_signature
        where = path or PATHS[interface]
        self.connection.call(where, interface, member, signature, *body, fds=fds, sender=sender)

    async def reply(self) -> Sent:
        """The reply, and whatever follows it; secrets are read in real time."""
        async with asyncio.timeout(20):
            while not self.connection.replies():  # noqa: ASYNC110
                await asyncio.sleep(0.002)
        await settle()
        (reply,) = self.connection.replies()
        return reply

    @property
    def order(self) -> list[str]:
        """What left since the call arrived."""
        return [each.what for each in self.connection.sent]

    async def call(self, member: str, *body: Any, **how: Any) -> Sent:
        """A call and its reply."""
        self.send(member, *body, **how)
        return await self.reply()

    async def sample(self, member: str, **how: Any) -> Sent:
        """A call that is in order, with as many secrets as it takes."""
        with pipes(*(CANARY, NEW)[: secrets_of(member)]) as fds:
            return await self.call(member, *SAMPLES[member], fds=fds, **how)
