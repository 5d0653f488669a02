"""DER (ITU-T X.690), as much of it as PKCS#15 needs, written by hand on purpose."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cardsession.virtual.tlv import tlv

SEQUENCE: Final = 0x30
NULL: Final = b"\x05\x00"
_TRUE: Final = b"\xff"


def sequence(*parts: bytes) -> bytes:
    """SEQUENCE and SEQUENCE OF."""
    return tlv(SEQUENCE, b"".join(parts))


def integer(value: int, tag: int = 0x02) -> bytes:
    """INTEGER, not negative: a first octet above 7F has a zero before it."""
    return tlv(tag, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def enumerated(value: int) -> bytes:
    """ENUMERATED."""
    return integer(value, 0x0A)


def boolean(*, value: bool) -> bytes:
    """BOOLEAN."""
    return tlv(0x01, _TRUE if value else b"\0")


def octets(value: bytes, tag: int = 0x04) -> bytes:
    """OCTET STRING."""
    return tlv(tag, value)


def text(value: str, tag: int = 0x0C) -> bytes:
    """UTF8String."""
    return tlv(tag, value.encode())


def named_bits(bits: Iterable[int], tag: int = 0x03) -> bytes:
    """BIT STRING with named bits: bit 0 is the first; trailing zeros are left out (11.2.2)."""
    chosen = set(bits)
    if not chosen:
        return tlv(tag, b"\0")
    count = max(chosen) + 1
    size = (count + 7) // 8
    value = sum(1 << (size * 8 - 1 - bit) for bit in chosen)
    return tlv(tag, bytes([size * 8 - count]) + value.to_bytes(size, "big"))


def oid(dotted: str) -> bytes:
    """OBJECT IDENTIFIER."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    return tlv(0x06, b"".join(_arc(arc) for arc in (first * 40 + second, *rest)))


def _arc(value: int) -> bytes:
    """Base 128, the most significant septet first, bit 8 on all but the last."""
    septets = [value & 0x7F]
    while value := value >> 7:
        septets.append(value & 0x7F | 0x80)
    return bytes(reversed(septets))
