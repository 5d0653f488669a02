"""The line to pcscd's virtual reader: the card connects, the reader asks, the card answers.

Frames are a length of two bytes, big-endian, and a body. A body of one byte from the reader is
a control word; any other is a command APDU. Connecting is insertion, closing is removal.
"""

from __future__ import annotations

import asyncio
import socket
from enum import IntEnum
from typing import Final

from cardsession.virtual.line import Device, Power, Reconnecting, receive_some

LOOPBACK: Final = "127.0.0.1"
PORT: Final = 35963
_LONGEST_FRAME: Final = 0xFFFF


class ControlWord(IntEnum):
    """Bodies of one byte. Only `ATR` is answered."""

    OFF = 0x00
    ON = 0x01
    RESET = 0x02
    ATR = 0x04


_POWER: Final = {
    ControlWord.OFF: Power.OFF,
    ControlWord.ON: Power.ON,
    ControlWord.RESET: Power.RESET,
}


class Link(Reconnecting):
    """One card's connection to pcscd's virtual reader."""

    def __init__(self, host: str, port: int, device: Device) -> None:
        super().__init__(device)
        self.host, self.port = host, port

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

    async def _answer(self, line: socket.socket, body: bytes) -> None:
        if len(body) != 1:
            await _send(line, await self._device.exchange(body))
        elif body[0] == ControlWord.ATR:
            await _send(line, self._device.atr)
        elif body[0] in _POWER:
            self._device.power(_POWER[ControlWord(body[0])])


async def _receive(line: socket.socket) -> bytes:
    """One frame's body; EOFError when the reader has closed."""
    size = int.from_bytes(await _receive_exactly(line, 2), "big")
    return await _receive_exactly(line, size)


async def _receive_exactly(line: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await receive_some(line, size - len(data))
    return data


async def _send(line: socket.socket, body: bytes) -> None:
    if len(body) > _LONGEST_FRAME:
        raise OSError("answer does not fit into a frame")
    frame = len(body).to_bytes(2, "big") + body
    await asyncio.get_running_loop().sock_sendall(line, frame)
