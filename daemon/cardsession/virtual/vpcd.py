"""The line to pcscd's virtual reader: the card connects, the reader asks, the card answers.

Frames are a length of two bytes, big-endian, and a body. A body of one byte from the reader is
a control word; any other is a command APDU. Connecting is insertion, closing is removal.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from enum import IntEnum
from typing import Final, Protocol

PORT: Final = 35963
_BACK_OFF_FIRST: Final = 0.05
_BACK_OFF_LONGEST: Final = 1.0
_LONGEST_FRAME: Final = 0xFFFF


class ControlWord(IntEnum):
    """Bodies of one byte. Only `ATR` is answered."""

    OFF = 0x00
    ON = 0x01
    RESET = 0x02
    ATR = 0x04


class Pulled(Exception):
    """The card was pulled during an exchange: close, answer nothing."""


class Device(Protocol):
    """What is at the other end of the line."""

    @property
    def atr(self) -> bytes:
        """The answer to reset."""

    def power(self, word: ControlWord) -> None:
        """Power off, power on or reset."""

    async def exchange(self, raw: bytes) -> bytes:
        """Answer one command APDU; Pulled if the card goes away instead."""


class Link:
    """One card's connection to a reader. It comes back if the reader goes away."""

    def __init__(self, host: str, port: int, device: Device) -> None:
        self.host, self.port = host, port
        self._device = device
        self._task: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Is there a connection to the reader now?"""
        return self._connected.is_set()

    def start(self) -> None:
        """Begin to connect, and go on trying."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="vpcd")

    async def stop(self) -> None:
        """Close the connection, which is removal. Safe to call twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def wait_connected(self, seconds: float) -> bool:
        """Wait for a connection, at most so long; was there one?"""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._connected.wait(), seconds)
        return self.connected

    async def _run(self) -> None:
        pause = _BACK_OFF_FIRST
        while True:
            try:
                if await self._connection():
                    pause = _BACK_OFF_FIRST
            except Pulled:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, _BACK_OFF_LONGEST)

    async def _connection(self) -> bool:
        """Connect and serve until the reader closes; did it ask anything in that time?"""
        asked = False
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as line:
            line.setblocking(False)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                await asyncio.get_running_loop().sock_connect(line, (self.host, self.port))
                self._connected.set()
                while True:
                    body = await _receive(line)
                    asked = True
                    await self._answer(line, body)
            except (OSError, EOFError):
                return asked
            finally:
                self._connected.clear()
                # A reader that lets go takes the power with it.
                self._device.power(ControlWord.OFF)

    async def _answer(self, line: socket.socket, body: bytes) -> None:
        if len(body) != 1:
            await _send(line, await self._device.exchange(body))
        elif body[0] == ControlWord.ATR:
            await _send(line, self._device.atr)
        elif body[0] in set(ControlWord):
            self._device.power(ControlWord(body[0]))


async def _receive(line: socket.socket) -> bytes:
    """One frame's body; EOFError when the reader has closed."""
    size = int.from_bytes(await _receive_exactly(line, 2), "big")
    return await _receive_exactly(line, size)


async def _receive_exactly(line: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        # The kernel falls back to delayed acknowledgements by itself, and the reader writes
        # length and body apart: without this each exchange takes 45 ms instead of 0.1 ms.
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        part = await asyncio.get_running_loop().sock_recv(line, size - len(data))
        if not part:
            raise EOFError("the reader closed the line")
        data += part
    return data


async def _send(line: socket.socket, body: bytes) -> None:
    if len(body) > _LONGEST_FRAME:
        raise OSError("answer does not fit into a frame")
    frame = len(body).to_bytes(2, "big") + body
    await asyncio.get_running_loop().sock_sendall(line, frame)
