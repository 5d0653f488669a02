"""The D-Bus wire cut into messages: pure, no I/O, no library.

Reads no body. From the header it takes what routing needs, and the number of descriptors that
belong to the message (dbus-next's own reader drops that number, so it cannot tell whose
descriptors are whose). Because the cut is ours, a body that nobody can parse costs that message
only, and a body that is too long is thrown away in pieces without being held or parsed.

Source: D-Bus specification 0.38, "Message Protocol" and "Type System".
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum, IntFlag

MAX_BODY = 256 * 1024
"""Longest body of a call or a signal that is looked at, in bytes: the contract's are a few KiB."""
MAX_REPLY_BODY = 4 * 1024 * 1024
"""The same for an answer to a question of ours: we asked for it."""
MAX_HEADER = 64 * 1024
"""Longest header that is looked at; a longer one is scanned for its sender and thrown away."""

_MAX_FIELDS = 1 << 26
_MAX_MESSAGE = 1 << 27
"""What the protocol allows ("Message Protocol"): who claims more has lost count, or wants us to
wait, and keep, for ever."""
_MAX_DEPTH = 64
"""Containers in containers ("Valid Signatures", "Message Format")."""

_FIXED = 16
"""Bytes before the header fields: order, kind, flags, version, two u32, the array's length."""
_SIZES = {
    "y": 1, "n": 2, "q": 2, "b": 4, "i": 4, "u": 4, "h": 4, "x": 8, "t": 8, "d": 8,
}  # fmt: skip
_ALIGNMENTS = _SIZES | {"s": 4, "o": 4, "g": 1, "v": 1, "a": 4, "(": 8, "{": 8}
_CLOSERS = {"(": ")", "{": "}"}


class WireError(Exception):
    """The bus broke the protocol: where the next message starts, or whose descriptors are whose,
    is no longer known, so the connection has to end."""


class Kind(IntEnum):
    """Message types ("Message Format")."""

    CALL = 1
    RETURN = 2
    ERROR = 3
    SIGNAL = 4


class Flag(IntFlag):
    """Message flags ("Message Format")."""

    NONE = 0
    NO_REPLY_EXPECTED = 1
    NO_AUTO_START = 2


class _Field(IntEnum):
    """Header field codes ("Header Fields")."""

    PATH = 1
    INTERFACE = 2
    MEMBER = 3
    ERROR_NAME = 4
    REPLY_SERIAL = 5
    DESTINATION = 6
    SENDER = 7
    SIGNATURE = 8
    UNIX_FDS = 9


@dataclass(frozen=True, slots=True)
class Header:
    """What a message says about itself. `kind` stays an int: a type unknown to us is ignored."""

    kind: int
    flags: Flag
    serial: int
    body_length: int
    path: str | None = None
    interface: str | None = None
    member: str | None = None
    error_name: str | None = None
    reply_serial: int = 0
    sender: str | None = None
    signature: str = ""
    fds: int = 0

    @property
    def wants_reply(self) -> bool:
        """True for a call whose sender waits for an answer."""
        return self.kind == Kind.CALL and not self.flags & Flag.NO_REPLY_EXPECTED


@dataclass(frozen=True, slots=True)
class Frame:
    """One message. `raw` is the whole of it, or None if it was too long and is thrown away.
    Whoever takes the frame owns its descriptors."""

    header: Header
    raw: bytes | None
    fds: tuple[int, ...] = ()


def close_fds(fds: Iterable[int]) -> None:
    """Close each descriptor; one that is closed already is nobody's loss."""
    for fd in fds:
        with suppress(OSError):
            os.close(fd)


class _Scanner:
    """A cursor over a header, able to read the types it knows and to skip any other."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.order: str
        match data[0]:
            case 0x6C:
                self.order = "little"
            case 0x42:
                self.order = "big"
            case _:
                raise WireError("unknown byte order")

    def align(self, size: int) -> None:
        self.at += -self.at % size

    def take(self, length: int) -> bytes:
        piece = self.data[self.at : self.at + length]
        if len(piece) != length:
            raise WireError("a header ends early")
        self.at += length
        return piece

    def u32(self) -> int:
        self.align(4)
        return int.from_bytes(self.take(4), "little" if self.order == "little" else "big")

    def text(self, length: int) -> str:
        """`length` bytes and the NUL that follows them."""
        try:
            return self.take(length + 1)[:-1].decode()
        except UnicodeDecodeError as error:
            raise WireError("a header is not UTF-8") from error

    def signature(self) -> str:
        return self.text(self.take(1)[0])

    def variant(self) -> str | int | None:
        """A variant's value, None for a type that no header field of ours has."""
        kind = self.signature()
        match kind:
            case "s" | "o":
                return self.text(self.u32())
            case "g":
                return self.signature()
            case "u":
                return self.u32()
            case _:
                self.skip(kind, 0)
                return None

    def skip(self, kind: str, index: int, depth: int = 0) -> int:
        """Pass over the value of the complete type at `index`; returns the next type's index."""
        code = kind[index : index + 1]
        if code not in _ALIGNMENTS or not code:
            raise WireError("a header has an unknown type")
        if depth > _MAX_DEPTH:
            raise WireError("a header is nested too deeply")
        self.align(_ALIGNMENTS[code])
        if code in _SIZES:
            self.take(_SIZES[code])
        elif code in "({":
            index += 1
            while kind[index : index + 1] != _CLOSERS[code]:
                index = self.skip(kind, index, depth + 1)
        elif code == "a":
            length = self.u32()
            self.align(_ALIGNMENTS.get(kind[index + 1 : index + 2], 1))
            self.take(length)
            return _type_end(kind, index + 1)
        elif code == "v":
            self.skip(self.signature(), 0, depth + 1)
        elif code == "g":
            self.signature()
        else:
            self.text(self.u32())
        return index + 1


def _type_end(kind: str, index: int) -> int:
    """Where the complete type that starts at `index` ends."""
    while kind[index : index + 1] == "a":
        index += 1
    closer = _CLOSERS.get(kind[index : index + 1])
    index += 1
    if closer is not None:
        while kind[index : index + 1] != closer:
            if index >= len(kind):
                raise WireError("a header has an unfinished type")
            index = _type_end(kind, index)
        index += 1
    return index


def _text(fields: dict[int, str | int | None], code: _Field) -> str | None:
    value = fields.get(code)
    return value if isinstance(value, str) else None


def _number(fields: dict[int, str | int | None], code: _Field) -> int:
    value = fields.get(code)
    return value if isinstance(value, int) else 0


def scan_header(data: bytes) -> Header:
    """Read a whole header (fixed part and fields, without padding). Raises WireError."""
    scanner = _Scanner(data)
    kind, flags, version = data[1], data[2], data[3]
    if version != 1:
        raise WireError("unknown protocol version")
    scanner.at = 4
    body_length, serial, length = scanner.u32(), scanner.u32(), scanner.u32()
    fields: dict[int, str | int | None] = {}
    while scanner.at < _FIXED + length:
        scanner.align(8)
        code = scanner.take(1)[0]
        fields[code] = scanner.variant()
    return Header(
        kind=kind,
        flags=Flag(flags & 3),
        serial=serial,
        body_length=body_length,
        path=_text(fields, _Field.PATH),
        interface=_text(fields, _Field.INTERFACE),
        member=_text(fields, _Field.MEMBER),
        error_name=_text(fields, _Field.ERROR_NAME),
        reply_serial=_number(fields, _Field.REPLY_SERIAL),
        sender=_text(fields, _Field.SENDER),
        signature=_text(fields, _Field.SIGNATURE) or "",
        fds=_number(fields, _Field.UNIX_FDS),
    )


class Splitter:
    """Bytes and descriptors in, frames out, in order.

    Descriptors arrive with the first byte of their message at the latest, so first in, first out
    and the number in the header say whose they are.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._fds: deque[int] = deque()
        self._discard = 0

    def feed(self, data: bytes, fds: Iterable[int] = ()) -> None:
        """Add what one read gave."""
        self._fds.extend(fds)
        if self._discard:
            dropped = min(self._discard, len(data))
            self._discard -= dropped
            data = data[dropped:]
        self._bytes += data

    def next(self) -> Frame | None:
        """The next message, None while it is incomplete. Raises WireError."""
        if len(self._bytes) < _FIXED:
            return None
        fixed = _Scanner(bytes(self._bytes[:_FIXED]))
        fixed.at = 4
        body_length = fixed.u32()
        fixed.at = 12
        fields = fixed.u32()
        start = _FIXED + fields + -fields % 8
        if fields > _MAX_FIELDS or start + body_length > _MAX_MESSAGE:
            raise WireError("a message is longer than the protocol allows")
        limit = MAX_REPLY_BODY if self._bytes[1] in {Kind.RETURN, Kind.ERROR} else MAX_BODY
        oversized = fields > MAX_HEADER or body_length > limit
        if len(self._bytes) < start + (0 if oversized else body_length):
            return None
        header = scan_header(bytes(self._bytes[: _FIXED + fields]))
        fds = self._take_fds(header.fds)
        if oversized:
            self._drop(start + body_length)
            return Frame(header, None, fds)
        raw = bytes(self._bytes[: start + body_length])
        del self._bytes[: start + body_length]
        return Frame(header, raw, fds)

    def close(self) -> None:
        """Close every descriptor that was not handed out."""
        close_fds(self._fds)
        self._fds.clear()
        self._bytes.clear()

    def _take_fds(self, count: int) -> tuple[int, ...]:
        if count > len(self._fds):
            raise WireError("descriptors are missing")
        return tuple(self._fds.popleft() for _ in range(count))

    def _drop(self, length: int) -> None:
        here = min(length, len(self._bytes))
        del self._bytes[:here]
        self._discard = length - here
