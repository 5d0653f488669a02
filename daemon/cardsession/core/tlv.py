"""BER-TLV of ISO/IEC 7816-4 clause 5.4.1, bounded: a card's lengths are claims, not facts."""

from __future__ import annotations

from collections.abc import Iterator

from .errors import Malformed

_LONG_FORM = 0x80
_TAG_GOES_ON = 0x1F
_LENGTH_BYTES = 3
"""Longest length field taken: 16 MiB is far more than a card holds."""


def items(data: bytes, *, cut: bool = False) -> Iterator[tuple[int, bytes]]:
    """The objects of `data` one after the other, (tag, value); padding of 00 or FF is skipped.

    With `cut`, only the head of an answer was read: the last object is as long as what is there.
    """
    at = 0
    while at < len(data):
        if data[at] in (0x00, 0xFF):  # clause 5.4.1: before, between and after objects
            at += 1
            continue
        tag, at = _tag(data, at)
        length, at = _length(data, at)
        if length > len(data) - at and not cut:
            raise Malformed(f"object {tag:X} claims {length} bytes, {len(data) - at} are there")
        yield tag, data[at : at + length]
        at += length


def find(data: bytes, tag: int) -> bytes | None:
    """The value of the first `tag` at this level."""
    return next((value for found, value in items(data) if found == tag), None)


def need(data: bytes, tag: int) -> bytes:
    """The same, where the standard says that it is there."""
    value = find(data, tag)
    if value is None:
        raise Malformed(f"object {tag:X} is missing")
    return value


def encode(tag: int, value: bytes) -> bytes:
    """One object with the shortest length that holds it."""
    head = tag.to_bytes((tag.bit_length() + 7) // 8 or 1, "big")
    size = len(value)
    if size < _LONG_FORM:
        return head + bytes([size]) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return head + bytes([0x80 | len(length)]) + length + value


def _tag(data: bytes, at: int) -> tuple[int, int]:
    tag = data[at]
    at += 1
    if tag & _TAG_GOES_ON == _TAG_GOES_ON:
        for _ in range(2):  # tags of at most three bytes (clause 5.4.2.1)
            byte = _byte(data, at)
            tag, at = tag << 8 | byte, at + 1
            if not byte & 0x80:
                return tag, at
        raise Malformed(f"tag {tag:X} is longer than three bytes")
    return tag, at


def _length(data: bytes, at: int) -> tuple[int, int]:
    first = _byte(data, at)
    if first < _LONG_FORM:
        return first, at + 1
    size = first & 0x7F
    if not 1 <= size <= _LENGTH_BYTES:
        raise Malformed(f"a length field of {size} bytes")
    field = data[at + 1 : at + 1 + size]
    if len(field) < size:
        raise Malformed("a length field is cut short")
    return int.from_bytes(field, "big"), at + 1 + size


def _byte(data: bytes, at: int) -> int:
    if at >= len(data):
        raise Malformed("an object is cut short")
    return data[at]
