"""Command APDUs as the card receives them (ISO/IEC 7816-4 clause 5), and its status words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

_HEADER: Final = 4
_SHORT_MAXIMUM: Final = 256
_EXTENDED_MAXIMUM: Final = 65536
_EXTENDED_LENGTH: Final = 3
CHAINING: Final = 0x10


class Ins(IntEnum):
    """Instructions, ISO/IEC 7816-4 clause 5.4.2."""

    VERIFY = 0x20
    MANAGE_SECURITY_ENVIRONMENT = 0x22
    CHANGE_REFERENCE_DATA = 0x24
    PERFORM_SECURITY_OPERATION = 0x2A
    RESET_RETRY_COUNTER = 0x2C
    GENERATE_ASYMMETRIC_KEY_PAIR = 0x47
    GENERAL_AUTHENTICATE = 0x87
    SELECT = 0xA4
    READ_BINARY = 0xB0
    READ_BINARY_OBJECTS = 0xB1
    READ_RECORD = 0xB2
    GET_RESPONSE = 0xC0
    GET_DATA = 0xCB
    PUT_DATA = 0xDB


class SW(IntEnum):
    """Status words, ISO/IEC 7816-4 clause 5.6 and SP 800-73-4 part 2."""

    OK = 0x9000
    END_OF_FILE = 0x6282
    FAILED = 0x6300
    TRIES = 0x63C0
    WRONG_LENGTH = 0x6700
    CHANNEL = 0x6881
    SECURE_MESSAGING = 0x6882
    CHAIN_EXPECTED = 0x6883
    NO_CHAINING = 0x6884
    INCOMPATIBLE = 0x6981
    SECURITY_STATUS = 0x6982
    BLOCKED = 0x6983
    CONDITIONS = 0x6985
    NO_CURRENT_EF = 0x6986
    WRONG_DATA = 0x6A80
    NOT_SUPPORTED = 0x6A81
    NOT_FOUND = 0x6A82
    NO_RECORD = 0x6A83
    NO_SPACE = 0x6A84
    WRONG_P1P2 = 0x6A86
    NO_REFERENCE = 0x6A88
    WRONG_OFFSET = 0x6B00
    EXACT_LENGTH = 0x6C00
    INS = 0x6D00
    CLA = 0x6E00


@dataclass(frozen=True, slots=True)
class Command:
    """A whole command, after chaining. `ne` is the number of bytes expected at most, 0 for none."""

    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes
    ne: int
    extended: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """What an applet answers; the chip cuts `data` into responses that the caller can take."""

    sw: int
    data: bytes = b""


class Malformed(ValueError):
    """The bytes are no command APDU: the card answers 6700."""


def _le(field: bytes, maximum: int) -> int:
    return int.from_bytes(field, "big") or maximum


def _body(body: bytes) -> tuple[bytes, int, bool]:
    """Data, Ne and whether the length fields are extended, for a body that is not empty."""
    if len(body) == 1:
        return b"", _le(body, _SHORT_MAXIMUM), False
    if body[0]:
        return *_data_and_le(body[1:], body[0], 1, _SHORT_MAXIMUM), False
    if len(body) == _EXTENDED_LENGTH:  # case 2E: 00 and a Le of two bytes
        return b"", _le(body[1:], _EXTENDED_MAXIMUM), True
    count = int.from_bytes(body[1:3], "big")
    if len(body) < _EXTENDED_LENGTH or not count:
        raise Malformed("extended Lc is truncated or zero")
    return *_data_and_le(body[3:], count, 2, _EXTENDED_MAXIMUM), True


def _data_and_le(rest: bytes, count: int, le_size: int, maximum: int) -> tuple[bytes, int]:
    if len(rest) == count:
        return rest, 0
    if len(rest) == count + le_size:
        return rest[:count], _le(rest[count:], maximum)
    raise Malformed("Lc does not match the length of the command")


def parse(raw: bytes) -> Command:
    """The command in `raw`, cases 1 to 4, short and extended; Malformed otherwise."""
    if len(raw) < _HEADER:
        raise Malformed("a command header has four bytes")
    cla, ins, p1, p2 = raw[:_HEADER]
    body = raw[_HEADER:]
    data, ne, extended = _body(body) if body else (b"", 0, False)
    return Command(cla, ins, p1, p2, data, ne, extended)
