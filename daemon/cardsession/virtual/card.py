"""A card: chip, PIV application, book and identity put together."""

from __future__ import annotations

from functools import reduce
from operator import xor
from typing import Final

from cardsession.virtual.apdu import SW, Command, Response
from cardsession.virtual.book import Book
from cardsession.virtual.chip import Chip
from cardsession.virtual.identity import Authority, personalise
from cardsession.virtual.options import CardOptions, Secrets
from cardsession.virtual.pins import Pins
from cardsession.virtual.piv import PivApplet
from cardsession.virtual.tlv import tlv

_MANAGER: Final = bytes.fromhex("A000000151000000")
_CAPABILITIES: Final = 0x73


def answer_to_reset(*, extended: bool, chaining: bool) -> bytes:
    """An ATR of a T=1 contact card (ISO/IEC 7816-3 clause 8.2), TCK included.

    The historical bytes tell the card's capabilities (7816-4 clause 12.1.1.9), among
    them selection by whole and partial name, command chaining, extended length fields.
    """
    abilities = (0x80 if chaining else 0) | (0x40 if extended else 0)
    historical = bytes([0x80, _CAPABILITIES, 0xC0, 0x21, abilities, 0x56]) + b"CSVDEV"
    # TA1 96, TD1 81 (T=1); TD2 31 (T=1), TA3 FE (IFSC 254), TB3 45 (BWI 4, CWI 5).
    interface = bytes([0x96, 0x81, 0x31, 0xFE, 0x45])
    body = bytes([0x90 | len(historical)]) + interface + historical
    return b"\x3b" + body + bytes([reduce(xor, body)])


class Manager:
    """A card manager that can only be selected: on a real chip PIV is not alone."""

    def answers_to(self, name: bytes) -> bool:
        """Its AID, in full."""
        return name == _MANAGER

    def select(self) -> bytes:
        """File control information with the AID."""
        return tlv(0x6F, tlv(0x84, _MANAGER))

    def deselect(self) -> None:
        """It has no state."""

    def reset(self) -> None:
        """It has no state."""

    def process(self, command: Command) -> Response:
        """It answers nothing."""
        return Response(SW.INS)


class VirtualCard:
    """One card. Its security status dies with power, its counters and book do not."""

    def __init__(self, options: CardOptions, secrets: Secrets, authority: Authority) -> None:
        self.options = options
        self.identity = personalise(options, authority)
        self.book = Book()
        self.pins = Pins(options, secrets, self.book)
        self.applet = PivApplet(options, self.pins, self.identity)
        self._chip = Chip(
            (self.applet, Manager()),
            default=self.applet if options.selected_by_default else None,
            extended=options.extended,
            chaining=options.chaining,
        )
        self.atr = options.atr or answer_to_reset(
            extended=options.extended, chaining=options.chaining
        )

    def reset(self) -> None:
        """Reset, power on, or power off: for the card they are the same."""
        self._chip.reset()

    def process(self, raw: bytes) -> bytes:
        """Answer one command APDU."""
        return self._chip.process(raw)
