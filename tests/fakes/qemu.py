"""QEMU's side of `ccid-card-passthru`, as version 7.2 was seen to behave.

Written from the protocol, sharing nothing with the card: it takes what comes, notes it, and
answers as QEMU does. What the guest would do is the test's.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from pathlib import Path
from typing import Self

DEADLINE = 10.0
HEADER = struct.Struct(">III")
INIT, ERROR, READER_ADD, READER_REMOVE, ATR, CARD_REMOVE, APDU, FLUSH, FLUSH_COMPLETE = range(1, 10)
NOBODY = 0xFFFFFFFF
HELLO = b"VSCD" + bytes.fromhex("0000000200000000")
ANSWERED = frozenset({READER_ADD, READER_REMOVE, ATR, CARD_REMOVE})
Heard = tuple[int, int, bytes]


class FakeQemu:
    """Listens at a path, or on a port of its own; notes what the card says; can be rude."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.port = 0
        self.refuses: dict[int, int] = {}
        self.mute = False
        self.reader = 0
        self._heard: asyncio.Queue[Heard | None] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def address(self) -> str:
        """As the command line has it."""
        return f"unix:{self.path}" if self.path else f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def listen(self) -> None:
        """Listen where it did before."""
        if self.path is not None:
            self._server = await asyncio.start_unix_server(self._serve, self.path)
            return
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """The whole machine is gone."""
        if self._server is not None:
            self._server.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Close the line, and go on listening."""
        if self._writer is not None:
            self._writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                kind, number, size = HEADER.unpack(await reader.readexactly(HEADER.size))
                message = kind, number, await reader.readexactly(size)
                await self._heard.put(message)
                if not self.mute:
                    self._answer(*message)
        await self._heard.put(None)
        writer.close()

    def _answer(self, kind: int, number: int, body: bytes) -> None:
        if kind == INIT:
            assert body == HELLO
            self.send(INIT, NOBODY, HELLO)
        elif kind in ANSWERED:
            code = self.refuses.get(kind, 0)
            self.send(ERROR, self.reader if kind == READER_ADD else number, code.to_bytes(4, "big"))
        elif kind not in {APDU, ERROR}:
            self.send(ERROR, number, bytes([0, 0, 0, 1]))

    def send(self, kind: int, number: int = 0, body: bytes = b"") -> None:
        """Say something of one's own."""
        self.write(HEADER.pack(kind, number, len(body)) + body)

    def write(self, raw: bytes) -> None:
        """Say something that need not be a frame."""
        assert self._writer is not None
        self._writer.write(raw)

    async def heard(self) -> Heard | None:
        """The next thing that the card said; None: it closed the line."""
        return await asyncio.wait_for(self._heard.get(), DEADLINE)

    async def kinds(self, number: int) -> list[int | None]:
        """What the next so many things were."""
        found = [await self.heard() for _ in range(number)]
        return [None if message is None else message[0] for message in found]

    async def said_nothing(self, within: float) -> bool:
        """Does the card say nothing, and not connect, in that many seconds?"""
        try:
            await asyncio.wait_for(self._heard.get(), within)
        except TimeoutError:
            return True
        return False

    async def card_in(self) -> bytes:
        """Wait until a card was inserted, whatever was said before; its ATR."""
        while True:
            message = await self.heard()
            if message is not None and message[0] == ATR:
                return message[2]

    async def ask(self, command: bytes | str) -> bytes:
        """A command of the guest's, and the card's answer."""
        self.send(
            APDU, self.reader, bytes.fromhex(command) if isinstance(command, str) else command
        )
        message = await self.heard()
        assert message is not None
        assert message[:2] == (APDU, self.reader)
        return message[2]
