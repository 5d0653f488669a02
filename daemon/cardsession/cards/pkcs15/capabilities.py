"""What a card says of the lengths that it takes: ISO/IEC 7816-4:2020 clause 12.1.1.9.

The ATR's historical bytes tell whether it takes extended length fields; how long a command and
an answer may be, EF.ATR/INFO tells, where the ATR refers to it.
"""

from __future__ import annotations

from dataclasses import replace

from cardsession.core import tlv
from cardsession.core.apdu import EXTENDED_LE, SHORT_LE
from cardsession.core.dialogue import Dialogue
from cardsession.core.errors import Malformed

from .files import Files
from .objects import Path

_EF_ATR = Path(bytes.fromhex("3F002F01"))
_LENGTHS = 0x7F66
"""Extended length information: two numbers, the bytes of a command and of an answer."""
_CAPABILITIES, _THIRD = 7, 2
_EXTENDED, _INFORMED = 0x40, 0x20
_COMPACT_TLV = 0x80
_LEAST = 1024
"""Bytes of a command that carries the longest input of a signature, and then some."""


def learn(files: Files, atr: bytes) -> Dialogue[None]:
    """Note in the card's manner what it takes; EF.ATR is read only if the ATR refers to it."""
    abilities = software_functions(atr)
    if not abilities & _EXTENDED:
        return
    if not abilities & _INFORMED:
        files.manner = replace(files.manner, extended=True)
        return
    content = yield from files.read(_EF_ATR)
    command, answer = _lengths(content or b"")
    extended, longest = command >= _LEAST, max(SHORT_LE, min(answer, EXTENDED_LE) - 2)
    files.manner = replace(files.manner, extended=extended, longest=longest)


def software_functions(atr: bytes) -> int:
    """The third byte of the card's capabilities; 0 where the historical bytes have none."""
    historical = historical_bytes(atr)
    if historical[:1] != bytes([_COMPACT_TLV]):
        return 0
    at = 1
    while at < len(historical):
        tag, size = historical[at] >> 4, historical[at] & 0x0F
        value = historical[at + 1 : at + 1 + size]
        if tag == _CAPABILITIES and len(value) > _THIRD:
            return value[_THIRD]
        at += 1 + size
    return 0


def historical_bytes(atr: bytes) -> bytes:
    """ISO/IEC 7816-3 clause 8.2: what follows the interface bytes, as many as T0 says."""
    if len(atr) < 2:  # noqa: PLR2004 - TS and T0
        return b""
    present, count, at = atr[1] >> 4, atr[1] & 0x0F, 2
    while present:
        at += present.bit_count()
        present = atr[at - 1] >> 4 if present & 0x8 and at <= len(atr) else 0
    return atr[at : at + count]


def _lengths(content: bytes) -> tuple[int, int]:
    try:
        found = [value for _, value in tlv.items(tlv.need(content, _LENGTHS))]
    except Malformed:
        return 0, 0
    numbers = [int.from_bytes(value[:4], "big") for value in found]
    return (numbers[0], numbers[1]) if len(numbers) > 1 else (0, 0)
