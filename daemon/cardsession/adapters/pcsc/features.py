"""What a reader can do beyond PC/SC's basics, as it says itself (PC/SC part 10)."""

from __future__ import annotations

from smartcard import scard
from smartcard.pcsc import PCSCPart10

SHORT_DATA = 256
"""Data bytes of a short APDU; a reader that names no more carries no other (part 10 clause 2.6.14:
dwMaxAPDUDataSize)."""


class _Handle:
    """A card handle as pyscard's part 10 functions want it."""

    def __init__(self, card: int) -> None:
        self._card = card

    def control(self, code: int, data: list[int]) -> list[int]:
        """SCardControl; an empty answer where the reader has none."""
        status, answer = scard.SCardControl(self._card, code, data)
        return list(answer) if status == scard.SCARD_S_SUCCESS else []


def carries_extended(card: int) -> bool:
    """Whether the reader of this handle carries APDUs with extended length fields."""
    try:
        properties = PCSCPart10.getTlvProperties(_Handle(card))
    except (IndexError, TypeError, ValueError):
        return False  # a driver's answer that is no list of TLVs
    most = (properties or {}).get("PCSCv2_PART10_PROPERTY_dwMaxAPDUDataSize")
    return isinstance(most, int) and most > SHORT_DATA
