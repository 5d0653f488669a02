"""A private message bus for each test session: the real dbus-daemon, of the system type."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from cardsession.bus.connection import Connection
from cardsession.client import CardSessionClient

from .fakeservice import FakeService

# Defaults of the stock system.conf, plus leave to own and call the names that the tests use.
_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <auth>EXTERNAL</auth>
  <listen>unix:path={socket}</listen>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
    <allow own="org.cardsession1"/>
    <allow own="org.example.Taken"/>
    <allow own="org.freedesktop.login1"/>
    <allow send_type="method_call"/>
  </policy>
</busconfig>
"""


@pytest.fixture
def bus_process(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A running dbus-daemon: its address and its process."""
    socket = tmp_path / "bus"
    config = tmp_path / "bus.conf"
    config.write_text(_CONFIG.format(socket=socket))
    ready, tell = os.pipe()
    process = subprocess.Popen(
        ["dbus-daemon", f"--config-file={config}", "--nofork", f"--print-address={tell}"],
        pass_fds=[tell],
    )
    os.close(tell)
    try:
        with os.fdopen(ready, "rb") as pipe:
            assert pipe.readline(), "dbus-daemon did not start"
        yield f"unix:path={socket}", process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def bus(bus_process: tuple[str, subprocess.Popen[bytes]]) -> str:
    """The address of a running private bus."""
    return bus_process[0]


Connect = Callable[[], Awaitable[Connection]]


@pytest.fixture
async def connect(bus: str) -> AsyncIterator[Connect]:
    """Opens connections to the private bus and closes them after the test."""
    opened: list[Connection] = []

    async def connect() -> Connection:
        opened.append(await Connection.open(bus))
        return opened[-1]

    yield connect
    for connection in opened:
        await connection.close()


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition, at most so long; fails the test otherwise."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (any condition, not only ours)
            await asyncio.sleep(0.005)


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Awaitable[None]]:
    """`await until(lambda: ...)`."""
    return until


@pytest.fixture
async def service(connect: Connect) -> FakeService:
    """The contract's other side, told what to say."""
    return await FakeService.start(await connect())


@pytest.fixture
async def client(service: FakeService, bus: str) -> AsyncIterator[CardSessionClient]:
    """A client of it."""
    async with await CardSessionClient.open(bus) as client:
        yield client
