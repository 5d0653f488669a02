"""Activation over a real dbus-daemon with the shipped files, and a stand-in for systemd."""

from __future__ import annotations

import asyncio
import configparser
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from cardsession.bus.connection import Connection, Signal
from cardsession.bus.contract import BUS_NAME
from cardsession.stack import Bus, Child
from cardsession.stack.processes import child_environment, program
from systemd.units import ACTIVATION, POLICY, UNIT, setting

DRIVER: Final = "org.freedesktop.DBus"
SYSTEMD: Final = "org.freedesktop.systemd1"
# Users and groups of Debian's base-passwd: the bus knows nobody who is not in the table.
SERVICE, MEMBER, STRANGER = 2, 1, 65534  # bin, daemon, nobody
GROUP, ADMINISTRATORS = 60, 12  # games, man


def with_numbers(text: str) -> str:
    """Users and groups that this machine has, instead of those that the package makes."""
    for name, number in (
        ('user="cardsession"', f'user="{SERVICE}"'),
        ('group="cardsession"', f'group="{GROUP}"'),
        ('group="cardsession-admin"', f'group="{ADMINISTRATORS}"'),
    ):
        assert name in text
        text = text.replace(name, number)
    return text


class Activating(Bus):
    """A bus that has the shipped policy and activation file, and leaves starting to systemd."""

    def __init__(self, directory: Path) -> None:
        policy = directory / "policy.conf"
        policy.write_text(with_numbers(POLICY.read_text()))
        super().__init__(directory, policies=[policy], open_to=os.getuid())
        services = directory / "system-services"
        services.mkdir()
        text = ACTIVATION.read_text().replace("User=cardsession", "User=bin")
        (services / ACTIVATION.name).write_text(text)
        end = f"  <servicedir>{services}</servicedir>\n</busconfig>"
        self._configuration = self._configuration.replace("</busconfig>", end)
        self.command.append("--systemd-activation")


@pytest.fixture
def activating(rundir: Path, begin: Callable[[Child], Child]) -> Bus:
    assert os.getuid() == 0, "other users need root: sudo sh tests/run.sh"
    return begin(Activating(rundir))  # type: ignore[return-value]


class Systemd:
    """What dbus-daemon takes for systemd: it is asked to start units, and does not."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.asked: list[str] = []

    async def begin(self) -> None:
        """From now on it is asked."""
        await self._connection.subscribe(
            lambda signal: self._take(signal),  # noqa: PLW0108 - no bound method of no type
            sender=DRIVER,
            interface=f"{SYSTEMD}.Activator",
            member="ActivationRequest",
        )
        await self._connection.own_name(SYSTEMD)

    def _take(self, signal: Signal) -> None:
        self.asked.append(str(signal.body[0]))

    async def until_asked(self) -> None:
        """Wait until it has been asked for something."""
        async with asyncio.timeout(20):
            while not self.asked:  # noqa: ASYNC110 - it is told in the background
                await asyncio.sleep(0.01)

    async def settled(self) -> None:
        """Whatever was asked before this has come."""
        await self._connection.round_trip(20)


@pytest_asyncio.fixture
async def systemd(activating: Bus) -> AsyncIterator[Systemd]:
    async with await Connection.open(activating.address) as connection:
        systemd = Systemd(connection)
        await systemd.begin()
        yield systemd


def busctl(bus: Bus, uid: int, groups: list[int], *arguments: str) -> subprocess.Popen[str]:
    """Somebody's call, by a tool that is not ours."""
    return subprocess.Popen(
        [program("busctl"), f"--address={bus.address}", "--timeout=1", "call", *arguments],
        env=child_environment(),
        user=uid,
        group=uid,
        extra_groups=groups,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def called(bus: Bus, uid: int, groups: list[int], *arguments: str) -> str:
    """What somebody's call came to, in the tool's words."""
    _, error = await asyncio.to_thread(busctl(bus, uid, groups, *arguments).communicate)
    return error


ASK: Final = (BUS_NAME, "/org/cardsession1", "org.cardsession1.Manager", "ListReaders")


@pytest.mark.parametrize("groups", [[GROUP], [ADMINISTRATORS]])
async def test_a_call_has_systemd_start_the_unit(
    activating: Bus, systemd: Systemd, groups: list[int]
) -> None:
    said = await called(activating, MEMBER, groups, *ASK)
    await systemd.until_asked()
    assert systemd.asked == [UNIT.name]
    assert "denied" not in said.lower()


async def test_whoever_may_not_call_starts_nothing_by_a_call(
    activating: Bus, systemd: Systemd
) -> None:
    said = await called(activating, STRANGER, [], *ASK)
    await systemd.settled()
    assert "access denied" in said.lower()
    assert not systemd.asked


def test_the_file_agrees_with_unit_and_contract() -> None:
    file = configparser.ConfigParser()
    file.optionxform = str  # type: ignore[assignment,method-assign]
    file.read(ACTIVATION)
    said = dict(file["D-BUS Service"])
    assert said == {
        "Name": BUS_NAME,
        "SystemdService": UNIT.name,
        "Exec": "/bin/false",
        "User": setting(UNIT, "User"),
    }
    assert ACTIVATION.stem == BUS_NAME == setting(UNIT, "BusName")
