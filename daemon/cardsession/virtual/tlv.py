"""BER-TLV (ISO/IEC 7816-4 clause 6.3), as much of it as a card needs.

The daemon's own parser is not used here on purpose: the card is its judge.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_MORE_TAG_BYTES: Final = 0x1F
_LONG_FORM: Final = 0x80


def length(count: int) -> bytes:
    """The BER length field of `count` value bytes."""
    if count < _LONG_FORM:
        return bytes([count])
    size = (count.bit_length() + 7) // 8
    return bytes([_LONG_FORM | size]) + count.to_bytes(size, "big")


def tlv(tag: int, value: bytes = b"") -> bytes:
    """One data object; the tag is written in as many bytes as the number needs."""
    head = tag.to_bytes(max(1, (tag.bit_length() + 7) // 8), "big")
    return head + length(len(value)) + value


def _read_tag(data: bytes, at: int) -> tuple[int, int]:
    tag = data[at]
    at += 1
    if tag & _MORE_TAG_BYTES == _MORE_TAG_BYTES:
        more = True
        while more:
            tag = tag << 8 | data[at]
            more = bool(data[at] & 0x80)
            at += 1
    return tag, at


def _read_length(data: bytes, at: int) -> tuple[int, int]:
    first = data[at]
    at += 1
    if first < _LONG_FORM:
        return first, at
    size = first & 0x7F
    if not size or at + size > len(data):
        raise ValueError("BER length field is truncated or indefinite")
    return int.from_bytes(data[at : at + size], "big"), at + size


def walk(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (tag, value) of the data objects in a row; ValueError where they do not fit."""
    at = 0
    while at < len(data):
        try:
            tag, at = _read_tag(data, at)
            size, at = _read_length(data, at)
        except IndexError:
            raise ValueError("data object is truncated") from None
        if at + size > len(data):
            raise ValueError(f"data object {tag:X} claims {size} bytes, {len(data) - at} are left")
        yield tag, data[at : at + size]
        at += size
