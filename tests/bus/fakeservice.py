"""The contract's other side for tests of the client: objects in a dict, answers as told."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from cardsession.bus import contract
from cardsession.bus.connection import Answer, Call, Connection, Refusal, Variant
from cardsession.bus.contract import ErrorName
from cardsession.bus.frames import close_fds

READER = f"{contract.READERS}/r1"
CARD = f"{contract.CARDS}/1"
SESSION = f"{contract.SESSIONS}/1"
_DEFAULTS = {"s": "", "b": False, "o": "/", "ay": b"", "as": [], "a{sy}": {}, "a{ss}": {}}


def properties(interface: str, **given: Any) -> dict[str, Variant]:
    """All properties of an interface, the given ones as given."""
    return {
        each.name: Variant(each.signature, given.get(each.name, _DEFAULTS.get(each.signature, 0)))
        for each in contract.interface(interface).properties.values()
    }


class FakeService:
    """Keeps objects, tells of their changes, records calls; `answers` by member override."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.objects: dict[str, dict[str, dict[str, Variant]]] = {
            contract.ROOT: {
                contract.MANAGER: properties(contract.MANAGER, Version="1", Backend="ok")
            },
            READER: {contract.READER: properties(contract.READER, Id="r1", Card=CARD)},
            CARD: {
                contract.CARD: properties(
                    contract.CARD, Reader=READER, Remedies=["renew"], PinTries={"user": 3},
                    State="ready",
                )
            },
        }  # fmt: skip
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.secrets: list[bytes] = []
        self.answers: dict[str, Callable[[Call], Answer]] = {}
        self.flush: Callable[[], None] = lambda: None
        connection.serve(self.handle, lambda: self.flush())  # noqa: PLW0108 (it is replaced later)

    @classmethod
    async def start(cls, connection: Connection) -> FakeService:
        """Serve, and own the name."""
        service = cls(connection)
        await connection.own_name(contract.BUS_NAME)
        return service

    async def handle(self, call: Call) -> Answer:
        """Answer as told, else as the contract's plainest service would."""
        self.calls.append((call.member, call.body))
        if call.interface == contract.SESSION:
            for index in range(call.fd_count):
                self._read(call.take_fd(index))
        if call.member in self.answers:
            return self.answers[call.member](call)
        match call.member:
            case "GetManagedObjects":
                return Answer("a{oa{sa{sv}}}", (self.below(),))
            case "GetAll":
                return Answer("a{sv}", (self.objects[call.path][call.body[0]],))
            case "OpenSession":
                self.add(SESSION, contract.SESSION, Owner=call.sender, Card=call.path, Id="1")
                return Answer("o", (SESSION,))
        raise Refusal(ErrorName.UNKNOWN_METHOD, "not told")

    def below(self) -> dict[str, dict[str, dict[str, Variant]]]:
        """The objects that the manager lists: all but itself."""
        return {path: each for path, each in self.objects.items() if path != contract.ROOT}

    def _read(self, fd: int) -> None:
        try:
            self.secrets.append(os.read(fd, 65) + os.read(fd, 65))
        finally:
            close_fds([fd])

    def add(self, path: str, interface: str, **given: Any) -> None:
        """Add an object and say so."""
        self.objects[path] = {interface: properties(interface, **given)}
        self._say(contract.ROOT, contract.OBJECT_MANAGER, "InterfacesAdded", path,
                  self.objects[path])  # fmt: skip

    def remove(self, path: str) -> None:
        """Remove an object and say so."""
        names = list(self.objects.pop(path))
        self._say(contract.ROOT, contract.OBJECT_MANAGER, "InterfacesRemoved", path, names)

    def change(self, path: str, **changed: Any) -> None:
        """Change properties and say so."""
        ((interface, known),) = self.objects[path].items()
        new = {name: Variant(known[name].signature, value) for name, value in changed.items()}
        known.update(new)
        self._say(path, contract.PROPERTIES, "PropertiesChanged", interface, new, [])

    def say(self, path: str, interface: str, member: str, *body: Any) -> None:
        """Emit any signal of the contract."""
        self._say(path, interface, member, *body)

    def _say(self, path: str, interface: str, member: str, *body: Any) -> None:
        signature = contract.interface(interface).signals[member].signature
        self.connection.emit(path, interface, member, signature, body)
