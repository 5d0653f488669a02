"""A bus that misbehaves, in the test's own loop: authenticates, says Hello, then as told."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from cardsession.bus.frames import Frame, Kind, Splitter
from cardsession.bus.wire import encode

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def authenticate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Agree to whatever is asked, up to BEGIN."""
    assert (await reader.readline()).startswith(b"\0AUTH EXTERNAL")
    writer.write(b"OK 1234\r\n")
    assert await reader.readline() == b"NEGOTIATE_UNIX_FD\r\n"
    writer.write(b"AGREE_UNIX_FD\r\n")
    assert await reader.readline() == b"BEGIN\r\n"


async def read_message(reader: asyncio.StreamReader) -> Frame:
    """The next message."""
    head = await reader.readexactly(16)
    body, _, fields = struct.unpack("<III", head[4:16])
    splitter = Splitter()
    splitter.feed(head + await reader.readexactly(fields + -fields % 8 + body))
    frame = splitter.next()
    assert frame is not None
    return frame


async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Authenticate and give the client the name :1.1."""
    await authenticate(reader, writer)
    call = await read_message(reader)
    reply = encode(Kind.RETURN, 1, "s", (":1.1",), reply_serial=call.header.serial)
    writer.write(stamp(reply, "org.freedesktop.DBus"))


def stamp(message: bytes, sender: str) -> bytes:
    """The message with a sender, which only a bus may put there."""
    length = struct.unpack("<I", message[12:16])[0]
    start = 16 + length + -length % 8
    name = sender.encode()
    field = b"\x07\x01s\0" + struct.pack("<I", len(name)) + name + b"\0"
    fields = message[16 : 16 + length] + bytes(-length % 8) + field
    head = message[:12] + struct.pack("<I", len(fields)) + fields
    return head + bytes(-len(head) % 8) + message[start:]


@asynccontextmanager
async def fake_bus(tmp_path: Path, script: Script) -> AsyncIterator[str]:
    """The address of a bus that runs `script` for each connection."""
    socket = tmp_path / "fake-bus"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, socket)
    try:
        yield f"unix:path={socket}"
    finally:
        server.close()
