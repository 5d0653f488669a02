"""The frames between a card and QEMU's `ccid-card-passthru`, and where QEMU listens.

A frame is a header of three 32-bit words, big-endian (message type, reader id, length), and so
many bytes. Only `VSCD` in an Init message is text.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from cardsession.virtual.line import receive_some

MAGIC: Final = b"VSCD"
VERSION: Final = 2
INIT_BODY: Final = MAGIC + VERSION.to_bytes(4, "big") + bytes(4)
NO_READER: Final = 0xFFFFFFFF
"""The reader id of messages that are of no reader."""
SUCCESS: Final = 0
GENERAL_ERROR: Final = bytes([0, 0, 0, 1])

_HEADER: Final = 12
_WORD: Final = 4
_LONGEST: Final = 4 + 3 + 0xFFFF + 2
"""The longest command APDU; nothing else that a reader says comes near it."""
_LONGEST_ANSWER: Final = 0x10000 - _HEADER
"""What QEMU takes in one frame: a longer one blocks its device until that is plugged in anew."""
_CHUNK: Final = 0x10000
_LONGEST_PATH: Final = 107
_UNIX: Final = "unix:"
_DECIMAL: Final = re.compile("[0-9]{1,5}")


class Kind(IntEnum):
    """Message types."""

    INIT = 1
    ERROR = 2
    READER_ADD = 3
    READER_REMOVE = 4
    ATR = 5
    CARD_REMOVE = 6
    APDU = 7
    FLUSH = 8
    FLUSH_COMPLETE = 9


class LineError(Exception):
    """What came is not this protocol; the text names what was expected."""


@dataclass(frozen=True, slots=True)
class Message:
    """One frame. `kind` is a `Kind`, or a number that is none."""

    kind: int
    reader: int
    body: bytes = b""

    @property
    def code(self) -> int:
        """Of an Error message, which is the answer to a request: 0 is success. LineError."""
        if len(self.body) < _WORD:
            raise LineError("an error message without a code")
        return int.from_bytes(self.body[:_WORD], "big")

    def check_init(self) -> None:
        """LineError if this Init is not one of this protocol. (QEMU lets versions differ.)"""
        if self.body[: len(MAGIC)] != MAGIC:
            raise LineError("an init message with VSCD was expected")


def _is_host(text: str) -> bool:
    """Something that can be looked up. (IPv6 cannot: its colons would want brackets.)"""
    try:
        return bool(text.encode("idna")) and ":" not in text
    except UnicodeError:
        return False


@dataclass(frozen=True, slots=True)
class Address:
    """Where QEMU listens: `path`, or else `host` and `port`."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return _UNIX + self.path if self.path else f"{self.host}:{self.port}"

    @classmethod
    def read(cls, text: str) -> Address:
        """`unix:PATH` or `HOST:PORT`. ValueError if it is neither."""
        if text.startswith(_UNIX):
            path = text.removeprefix(_UNIX)
            if not 0 < len(os.fsencode(path)) <= _LONGEST_PATH or "\0" in path:
                raise ValueError(f"a path of 1 to {_LONGEST_PATH} bytes was expected after unix:")
            return cls(path=path)
        host, _, port = text.rpartition(":")
        number = int(port) if _DECIMAL.fullmatch(port) else 0
        if not _is_host(host) or not 0 < number < 1 << 16:
            raise ValueError("unix:PATH or HOST:PORT was expected")
        return cls(host=host, port=number)

    def socket(self) -> socket.socket:
        """A socket for it, not connected yet."""
        line = socket.socket(socket.AF_UNIX if self.path else socket.AF_INET, socket.SOCK_STREAM)
        line.setblocking(False)
        if not self.path:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return line

    @property
    def target(self) -> str | tuple[str, int]:
        """What that socket connects to."""
        return self.path or (self.host, self.port)


class Frames:
    """The frames of one connection, and the requests that are not answered yet."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._data = bytearray()
        self.asked: deque[Kind] = deque()

    async def receive(self) -> Message:
        """The next message. EOFError, OSError, LineError. Cancelling it loses no bytes."""
        while (message := self._whole()) is None:
            self._data += await receive_some(self._line, _CHUNK)
        return message

    def _whole(self) -> Message | None:
        if len(self._data) < _HEADER:
            return None
        kind, reader, length = (
            int.from_bytes(self._data[at : at + _WORD], "big") for at in range(0, _HEADER, _WORD)
        )
        if length > _LONGEST:
            raise LineError(f"at most {_LONGEST} bytes were expected, not {length}")
        if len(self._data) < _HEADER + length:
            return None
        body = bytes(self._data[_HEADER : _HEADER + length])
        del self._data[: _HEADER + length]
        return Message(kind, reader, body)

    async def send(self, kind: Kind, reader: int, body: bytes = b"") -> None:
        """Send one message that is not answered. OSError; LineError if it is too long."""
        if len(body) > _LONGEST_ANSWER:
            raise LineError(f"at most {_LONGEST_ANSWER} bytes fit, not {len(body)}")
        head = b"".join(word.to_bytes(_WORD, "big") for word in (kind, reader, len(body)))
        await asyncio.get_running_loop().sock_sendall(self._line, head + body)

    async def ask(self, kind: Kind, reader: int, body: bytes = b"") -> None:
        """Send a request, which an Error message will answer, with success or not."""
        self.asked.append(kind)
        await self.send(kind, reader, body)

    def settled(self) -> Kind | None:
        """The request that an Error message answers; None if there is none."""
        return self.asked.popleft() if self.asked else None
