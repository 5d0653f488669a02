"""What the tests of the connection share."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import subprocess
import termios
from collections.abc import Awaitable, Callable
from typing import Any

from cardsession.bus.connection import Answer, Call, Connection, Reply
from cardsession.client import Event, Events

Connect = Callable[[], Awaitable[Connection]]
Until = Callable[..., Awaitable[None]]
Bus = tuple[str, "subprocess.Popen[bytes]"]
CANARY = "73194682"


def open_fds() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (counted, not looked at)


def unread(fd: int) -> int:
    """How many bytes wait in a pipe."""
    found = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, found)
    return found[0]


async def echo(call: Call) -> Answer:
    """A handler that gives back what it was given."""
    return Answer(call.signature, call.body)


async def pair(connect: Connect) -> tuple[Connection, Connection]:
    """A server that echoes, and a client."""
    server, client = await connect(), await connect()
    server.serve(echo)
    return server, client


async def ask(client: Connection, server: Connection, member: str = "Do", *args: Any) -> Reply:
    """Call a method of the server."""
    return await client.call(server.unique_name, "/a", "a.b", member, *args)


async def run(*command: str) -> str:
    """What a program says, which must succeed."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    async with asyncio.timeout(30):
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


async def next_of(events: Events, number: int) -> list[Event]:
    """The next events."""
    async with asyncio.timeout(20):
        return [await anext(events) for _ in range(number)]


async def close_and_wait(leaver: Connection, observer: Connection) -> None:
    """Close a connection and wait until the bus has noticed."""
    name = leaver.unique_name
    await leaver.close()
    driver = "org.freedesktop.DBus"
    async with asyncio.timeout(20):
        while (await observer.call(driver, "/", driver, "NameHasOwner", "s", (name,))).body[0]:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
