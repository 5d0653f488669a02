"""What a reader can do beyond PC/SC's basics, as it says itself (PC/SC part 10)."""

from __future__ import annotations

from smartcard import scard
from smartcard.pcsc import PCSCPart10

from cardsession.core.seats import Attributes
from cardsession.core.text import clean

from .codes import failure

SHORT_DATA = 256
"""Data bytes of a short APDU; a reader that names no more carries no other (part 10 clause 2.6.14:
dwMaxAPDUDataSize)."""
CHANNEL_BYTES = 4
_UNHEARD = frozenset({0x8010000B, 0x80100003, 0x80100009, 0x80100017, 0x8010001D, 0x8010001E})
"""The reader was not asked: a rival's transaction, a handle whose reader is gone, no service."""
_PIN_PAD = (PCSCPart10.FEATURE_VERIFY_PIN_DIRECT, PCSCPart10.FEATURE_VERIFY_PIN_START)


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


def attributes(card: int) -> Attributes:
    """What the reader of this handle says of itself; each word of it may be missing. Raises
    `Failure` if it could not be asked."""
    channel = _attribute(card, scard.SCARD_ATTR_CHANNEL_ID)
    return Attributes(
        channel_id=int.from_bytes(channel, "little") if len(channel) == CHANNEL_BYTES else None,
        serial=_text(_attribute(card, scard.SCARD_ATTR_VENDOR_IFD_SERIAL_NO)),
        model=_text(_attribute(card, scard.SCARD_ATTR_VENDOR_IFD_TYPE)),
        pin_pad=_has_pin_pad(card),
    )


def _attribute(card: int, name: int) -> bytes:
    code, value = scard.SCardGetAttrib(card, name)
    if code & 0xFFFFFFFF in _UNHEARD:
        raise failure(code)
    return bytes(value) if code == scard.SCARD_S_SUCCESS else b""


def _text(raw: bytes) -> str:
    """Drivers end a text with a NUL, or do not."""
    return clean(raw.split(b"\x00")[0])


def _has_pin_pad(card: int) -> bool:
    try:
        features = PCSCPart10.getFeatureRequest(_Handle(card))
    except (IndexError, TypeError, ValueError):
        return False  # as above
    return any(PCSCPart10.hasFeature(features, each) for each in _PIN_PAD)
