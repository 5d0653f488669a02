"""logind on the private bus: python-dbusmock with its logind template, a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from cardsession.bus.connection import BusError, Connection, Variant
from cardsession.stack import Bus, Child
from cardsession.stack.processes import child_environment

NAME: Final = "org.freedesktop.login1"
PATH: Final = "/org/freedesktop/login1"
MANAGER: Final = f"{NAME}.Manager"
_MOCK: Final = "org.freedesktop.DBus.Mock"


class Logind(Child):
    """The process. What it is asked and told goes over a connection of the test's."""

    def __init__(self, directory: Path, bus: Bus, name: str = "logind") -> None:
        # Debian's python3-dbusmock belongs to Debian's interpreter.
        command = ["/usr/bin/python3", "-m", "dbusmock", "--template", "logind"]
        environment = child_environment({"DBUS_SYSTEM_BUS_ADDRESS": bus.address})
        super().__init__(name, command, directory / f"{name}.log", environment)


async def inhibitors(connection: Connection) -> list[list[Any]]:
    """What, who, why and mode of each that is held now, with uid and pid."""
    try:
        reply = await connection.call(NAME, PATH, MANAGER, "ListInhibitors")
    except BusError:
        return []  # it is not there, or not yet
    return [list(each) for each in reply.body[0]]


async def announce(connection: Connection, *, sleep: bool) -> None:
    """Have logind itself say PrepareForSleep."""
    body = (MANAGER, "PrepareForSleep", "b", [Variant("b", sleep)])
    await connection.call(NAME, PATH, _MOCK, "EmitSignal", "sssav", body)
