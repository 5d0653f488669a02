"""cardsessionctl as a process, and a service on a private bus that is told what to say."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import termios
import threading
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from bus.fakeservice import CARD, READER, FakeService
from cardsession.bus.connection import Connection
from cardsession.stack import Bus

NAME = "Virtual PCD 00 00"


@dataclass(frozen=True)
class Said:
    """What a finished command left."""

    code: int
    out: str
    err: str


class Tool:
    """A running cardsessionctl."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def line(self) -> str:
        """The next line of its output, as soon as it is there."""
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            return (await self.process.stdout.readline()).decode()

    async def until(self, part: str) -> str:
        """The next line with that in it."""
        while part not in (line := await self.line()):
            assert line, f"ended without {part!r}"
        return line

    async def end(self, typed: bytes | None = None) -> Said:
        """Wait for its end."""
        async with asyncio.timeout(20):
            out, err = await self.process.communicate(typed)
        assert self.process.returncode is not None
        return Said(self.process.returncode, (out or b"").decode(), (err or b"").decode())


Start = Callable[..., Awaitable[Tool]]
Ctl = Callable[..., Awaitable[Said]]


def environment(address: str) -> dict[str, str]:
    """For a child on that bus."""
    return {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": address, "TERM": "dumb", "TZ": "UTC"}


@pytest.fixture
async def start(bus: Bus) -> AsyncIterator[Start]:
    """`await start("watch", "--json")`; ended with the test."""
    begun: list[Process] = []

    async def start(
        *arguments: str, address: str = "", more: dict[str, str] | None = None, **options: Any
    ) -> Tool:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = (sys.executable, "-m", "cardsession.ctl", *arguments)
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment(address or bus.address) | (more or {}),
            **{**pipes, **options},
        )
        begun.append(process)
        return Tool(process)

    yield start
    for process in begun:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.fixture
def ctl(start: Start) -> Ctl:
    """`await ctl("status")` is what it said."""

    async def run(*arguments: str, typed: bytes | None = None, **options: Any) -> Said:
        return await (await start(*arguments, **options)).end(typed)

    return run


class Screen:
    """A terminal of its own for a command, and all that it has shown."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        termios.tcsetwinsize(self.slave, (40, 150))
        self.name = os.ttyname(self.slave)
        self.shown = b""
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while True:
            try:
                self.shown += os.read(self.master, 1000)
            except OSError:
                return

    async def until(self, text: bytes) -> None:
        """Wait until it is shown."""
        async with asyncio.timeout(20):
            while text not in self.shown:  # noqa: ASYNC110 - a thread reads
                await asyncio.sleep(0.005)

    def close(self) -> None:
        """Hang up."""
        os.close(self.slave)
        self._thread.join(10)
        os.close(self.master)


@pytest.fixture
def screen() -> Iterator[Screen]:
    """A terminal, 150 columns wide."""
    made = Screen()
    yield made
    made.close()


AtTerminal = Callable[..., Awaitable[Process]]


@pytest.fixture
async def at_terminal(bus: Bus, screen: Screen) -> AsyncIterator[AtTerminal]:
    """Start cardsessionctl with `screen` as its controlling terminal; ended with the test."""
    begun: list[Process] = []
    code = (  # a session leader gets the first terminal that it opens
        f"import os, sys; os.open({screen.name!r}, os.O_RDWR)\n"
        "from cardsession.ctl.__main__ import main; sys.exit(main())"
    )

    async def start(*arguments: str, term: str = "dumb") -> Process:
        streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), screen.slave)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, *arguments,
            start_new_session=True, env=environment(bus.address) | {"TERM": term}, **streams,
        )  # fmt: skip
        begun.append(process)
        return process

    yield start
    for process in begun:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
async def service(bus: Bus) -> AsyncIterator[FakeService]:
    """One reader with one ready card in it."""
    async with await Connection.open(bus.address) as connection:
        made = FakeService(connection)
        made.objects.pop(CARD)
        made.objects.pop(READER)
        await connection.own_name("org.cardsession1")
        add_card(made, 1)
        yield made


def add_card(service: FakeService, number: int, **facts: Any) -> tuple[str, str]:
    """A reader with a ready card; their paths."""
    reader = f"/org/cardsession1/reader/r{number}"
    card = f"/org/cardsession1/card/{number}"
    name = f"Virtual PCD 00 {number - 1:02}"
    seat = {"Id": f"r{number}", "Name": name, "State": "ready", "Card": card}
    service.add(reader, "org.cardsession1.Reader", **seat)
    known = {
        "Reader": reader,
        "State": "ready",
        "Profile": "piv",
        "HolderId": "Ada Example",
        "NotAfter": 1_893_456_000,
        "PinTries": {"user": 3},
    }
    service.add(card, "org.cardsession1.Card", **known | facts)
    return reader, card
