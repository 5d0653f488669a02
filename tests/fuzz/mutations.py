"""True bytes made false: a bit, a length, a piece too much or too little."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

ODD = (0x00, 0x01, 0x1F, 0x30, 0x7F, 0x80, 0x81, 0x82, 0x83, 0x84, 0x9F, 0xA0, 0xFE, 0xFF)
"""Bytes that mean something to a parser of lengths or tags."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One change, at a place that is a share of the whole (0 to 1)."""

    kind: str
    place: float
    data: bytes

    def __call__(self, content: bytes) -> bytes:
        """The changed bytes."""
        at = int(self.place * len(content))
        return _KINDS[self.kind](content, at, self.data)


def _flip(content: bytes, at: int, data: bytes) -> bytes:
    changed = bytearray(content)
    if at < len(changed):
        changed[at] ^= 1 << (data[0] & 7)
    return bytes(changed)


def _twice(content: bytes, at: int, data: bytes) -> bytes:
    piece = content[at : at + data[0]]
    return content[:at] + piece + content[at:]


_KINDS: dict[str, Callable[[bytes, int, bytes], bytes]] = {
    "flip": _flip,
    "set": lambda content, at, data: content[:at] + data[:1] + content[at + 1 :],
    "put": lambda content, at, data: content[:at] + data + content[at:],
    "take": lambda content, at, data: content[:at] + content[at + len(data) :],
    "cut": lambda content, at, _: content[:at],
    "behead": lambda content, at, _: content[at:],
    "twice": _twice,
    "zero": lambda content, at, data: (content[:at] + bytes(len(data)) + content[at:])[
        : len(content)
    ],
}

_DATA = st.sampled_from(ODD).map(lambda each: bytes([each])) | st.binary(min_size=1, max_size=12)
EDITS = st.builds(Edit, st.sampled_from(sorted(_KINDS)), st.floats(0, 1, width=32), _DATA)
SOME = st.lists(EDITS, min_size=1, max_size=4)


def changed(content: bytes, edits: list[Edit]) -> bytes:
    """All of them, one after the other."""
    for edit in edits:
        content = edit(content)
    return content


def mutants(*seeds: bytes) -> st.SearchStrategy[bytes]:
    """Some of these, changed; now and then one that is not."""
    return st.builds(changed, st.sampled_from(seeds), SOME | st.just([]))


def _object(tag: bytes, value: bytes, lie: int) -> bytes:
    size = max(0, len(value) + lie)
    if size < 0x80:
        return tag + bytes([size]) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return tag + bytes([0x80 | len(length)]) + length + value


_TAGS = st.sampled_from(
    [bytes.fromhex(each) for each in
     ["30", "31", "02", "03", "04", "06", "0C", "A0", "A1", "A2", "80", "81", "82", "83", "84",
      "86", "87", "53", "70", "71", "FE", "7E", "7C", "4F", "5F2F", "5FC105", "61", "62", "6F",
      "7F49"]]
)  # fmt: skip
_LIES = st.sampled_from([0, 0, 0, 0, 0, -1, 1, 127, 65_535])


def _grown(parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.builds(_object, _TAGS, st.lists(parts, max_size=4).map(b"".join), _LIES)


TREES: st.SearchStrategy[bytes] = st.recursive(
    st.builds(_object, _TAGS, st.binary(max_size=24), _LIES), _grown, max_leaves=12
)
"""Objects within objects, mostly of lengths that are true."""


def noise(size: int = 300) -> st.SearchStrategy[Any]:
    """Anything."""
    return st.binary(max_size=size)
