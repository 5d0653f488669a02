"""The data objects of a PIV card as bytes (SP 800-73-4 part 1, clause 3 and appendix A)."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from datetime import date
from enum import IntEnum
from typing import Final

from cardsession.virtual.options import PinPolicy, Slot
from cardsession.virtual.tlv import tlv

AID: Final = bytes.fromhex("A000000308000010000100")
_RID: Final = 5
_WITHOUT_VERSION: Final = 9
_EDC: Final = 0xFE
_CARD_IDENTIFIER: Final = 14


class Tag(IntEnum):
    """Data object tags, SP 800-73-4 part 1 table 3."""

    DISCOVERY = 0x7E
    CARD_AUTHENTICATION = 0x5FC101
    CHUID = 0x5FC102
    FINGERPRINTS = 0x5FC103
    AUTHENTICATION = 0x5FC105
    CCC = 0x5FC107
    FACE = 0x5FC108
    PRINTED = 0x5FC109
    SIGNATURE = 0x5FC10A
    KEY_MANAGEMENT = 0x5FC10B
    KEY_HISTORY = 0x5FC10C
    IRIS = 0x5FC121


CERTIFICATE_TAG: Final = {
    Slot.AUTHENTICATION: Tag.AUTHENTICATION,
    Slot.SIGNATURE: Tag.SIGNATURE,
    Slot.KEY_MANAGEMENT: Tag.KEY_MANAGEMENT,
    Slot.CARD_AUTHENTICATION: Tag.CARD_AUTHENTICATION,
}
NEEDS_PIN: Final = frozenset({Tag.FINGERPRINTS, Tag.FACE, Tag.PRINTED, Tag.IRIS})

_POLICY: Final = {
    PinPolicy.APPLICATION: b"\x40\x00",
    PinPolicy.GLOBAL_TOO: b"\x60\x10",
    PinPolicy.GLOBAL_PRIMARY: b"\x60\x20",
}


def answers_to(name: bytes) -> bool:
    """Is `name` the PIV AID, whole or right-truncated no further than its version?"""
    return len(name) >= _WITHOUT_VERSION and AID.startswith(name)


def property_template(algorithms: Iterable[int]) -> bytes:
    """The application property template, answered to SELECT (part 2 table 3)."""
    return tlv(
        0x61,
        tlv(0x4F, AID[_RID:])
        + tlv(0x79, tlv(0x4F, AID[:_RID]))
        + tlv(0x50, b"cardsession developer's card")
        + b"".join(
            tlv(0xAC, tlv(0x80, bytes([algorithm])) + tlv(0x06, b"\0")) for algorithm in algorithms
        ),
    )


def _symbols(digits: str) -> str:
    """Digits in the five-bit code of the FASC-N: least significant bit first, odd parity."""
    bits = ""
    for digit in digits:
        four = f"{int(digit):04b}"[::-1]
        bits += four + str(1 - four.count("1") % 2)
    return bits


def fascn(credential: int = 999999) -> bytes:
    """The 25 bytes of a FASC-N of an issuer outside the US government: agency and system 9999."""
    start, separator, end = "11010", "10110", "11111"
    fields = ("9999", "9999", f"{credential:06d}", "0", "1")
    bits = start + "".join(_symbols(field) + separator for field in fields)
    bits += _symbols("0000000000" + "3" + "0000" + "1") + end
    columns = [bits[column::5].count("1") % 2 for column in range(4)]
    check = "".join(map(str, columns))
    bits += check + str(1 - check.count("1") % 2)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def chuid(guid: bytes, expires: date) -> bytes:
    """Card holder unique identifier; the issuer's signature is present and empty."""
    content = (
        tlv(0x30, fascn())
        + tlv(0x34, guid)
        + tlv(0x35, f"{expires:%Y%m%d}".encode())
        + tlv(0x3E)
        + tlv(_EDC)
    )
    return tlv(0x53, content)


def capability_container(guid: bytes) -> bytes:
    """Card capability container: only its mandatory elements, most of them empty."""
    identifier = bytes.fromhex("A000000116") + b"\xff\x02" + guid[:_CARD_IDENTIFIER]
    content = tlv(0xF0, identifier) + tlv(0xF1, b"\x21") + tlv(0xF2, b"\x21") + tlv(0xF3)
    content += tlv(0xF4, b"\0") + tlv(0xF5, b"\x10")
    for tag in (0xF6, 0xF7, 0xFA, 0xFB, 0xFC, 0xFD, _EDC):
        content += tlv(tag)
    return tlv(0x53, content)


def discovery(policy: PinPolicy) -> bytes:
    """The discovery object: the one that is not wrapped in 53."""
    return tlv(0x7E, tlv(0x4F, AID) + tlv(0x5F2F, _POLICY[policy]))


def certificate(der: bytes, *, compressed: bool) -> bytes:
    """A certificate object: 70 the certificate, 71 whether it is compressed, FE."""
    value = gzip.compress(der, mtime=0) if compressed else der
    return tlv(0x53, tlv(0x70, value) + tlv(0x71, bytes([compressed])) + tlv(_EDC))
