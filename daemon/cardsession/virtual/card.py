"""A card: chip, application, book and identity put together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import xor
from typing import Final, Protocol

from cardsession.virtual.apdu import SW, Command, Ins, Response
from cardsession.virtual.book import Book
from cardsession.virtual.chip import Applet, Chip
from cardsession.virtual.identity import Authority, Identity, personalise
from cardsession.virtual.options import CardOptions, Family, Secrets, TransmissionProtocol
from cardsession.virtual.pins import Pins
from cardsession.virtual.piv import PivApplet
from cardsession.virtual.pkcs15.applet import Pkcs15Applet
from cardsession.virtual.pkcs15.layout import SLOTS
from cardsession.virtual.pkcs15.pins import Pins15
from cardsession.virtual.reference import Reference
from cardsession.virtual.tlv import tlv

_MANAGER: Final = bytes.fromhex("A000000151000000")
_CAPABILITIES: Final = 0x73
_BY_NAME: Final = 0xC0
_FILES_TOO: Final = 0x36


def answer_to_reset(*, extended: bool, chaining: bool, files: bool = False, t0: bool) -> bytes:
    """An ATR of a contact card (ISO/IEC 7816-3 clause 8.2): T=1 with TCK, or T=0, which has none.

    The historical bytes tell the card's capabilities (7816-4 clause 12.1.1.9), among
    them selection by whole and partial name, command chaining, extended length fields; with
    `files` selection by path and file identifier, short identifiers and record numbers.
    """
    selection = _BY_NAME | (_FILES_TOO if files else 0)
    abilities = (0x80 if chaining else 0) | (0x40 if extended else 0)
    historical = bytes([0x80, _CAPABILITIES, selection, 0x21, abilities, 0x56]) + b"CSVDEV"
    if t0:
        # TD1 40 (T=0 only); TC2 01 (WI): drivers give a silent card up after 23 s, not 230.
        return bytes([0x3B, 0x80 | len(historical), 0x40, 0x01]) + historical
    # TA1 96, TD1 81 (T=1); TD2 31 (T=1), TA3 FE (IFSC 254), TB3 45 (BWI 4, CWI 5).
    interface = bytes([0x96, 0x81, 0x31, 0xFE, 0x45])
    body = bytes([0x90 | len(historical)]) + interface + historical
    return b"\x3b" + body + bytes([reduce(xor, body)])


class Manager:
    """A card manager that can only be selected: on a real chip PIV is not alone."""

    def answers_to(self, name: bytes) -> bool:
        """Its AID, in full."""
        return name == _MANAGER

    def select(self, _: int) -> bytes:
        """File control information with the AID."""
        return tlv(0x6F, tlv(0x84, _MANAGER))

    def deselect(self) -> None:
        """It has no state."""

    def reset(self) -> None:
        """It has no state."""

    def process(self, command: Command) -> Response:
        """It answers nothing, and has no files."""
        return Response(SW.WRONG_P1P2 if command.ins == Ins.SELECT else SW.INS)


class Application(Applet, Protocol):
    """The application that makes the card what it is; `serial` is what it calls itself."""

    serial: bytes

    def put(self, name: bytes, value: bytes | None) -> list[str]:
        """Write (or remove) a data object or file past all rules; the names of all."""


class References(Protocol):
    """A card's PINs, as the control socket and tests handle them."""

    @property
    def primary(self) -> int:
        """The reference that is meant when none is named."""

    @property
    def satisfied(self) -> bool:
        """Is somebody verified?"""

    def reference(self, at: int) -> Reference:
        """The reference with that number; KeyError if the card has none."""

    def replace(self, at: int, text: str) -> None:
        """Give a reference a new value, as if at the factory. KeyError, ValueError."""

    def as_dict(self) -> dict[str, object]:
        """Tries left, limit and security status by number in hexadecimal."""


@dataclass(frozen=True, slots=True)
class _Made:
    identity: Identity
    pins: References
    applet: Application


def _piv(options: CardOptions, secrets: Secrets, authority: Authority, book: Book) -> _Made:
    identity = personalise(options, authority)
    pins = Pins(options, secrets, book)
    return _Made(identity, pins, PivApplet(options, pins, identity))


def _pkcs15(options: CardOptions, secrets: Secrets, authority: Authority, book: Book) -> _Made:
    slots = tuple(slot for slot in options.slots if slot in SLOTS)
    identity = personalise(replace(options, slots=slots), authority)
    pins = Pins15(options, secrets, book)
    return _Made(identity, pins, Pkcs15Applet(options, pins, identity, authority.der()))


_MAKERS: Final = {Family.PIV: _piv, Family.PKCS15: _pkcs15}


class VirtualCard:
    """One card. Its security status dies with power, its counters and book do not."""

    def __init__(self, options: CardOptions, secrets: Secrets, authority: Authority) -> None:
        self.options = options
        self.book = Book()
        made = _MAKERS[options.family](options, secrets, authority, self.book)
        self.identity, self.pins, self.applet = made.identity, made.pins, made.applet
        t0 = options.protocol is TransmissionProtocol.T0
        extended = options.extended and not t0
        self._chip = Chip(
            (self.applet, Manager()),
            default=self.applet if options.selected_by_default else None,
            extended=extended,
            chaining=options.chaining,
        )
        self.atr = options.atr or answer_to_reset(
            extended=extended,
            chaining=options.chaining,
            files=options.family is Family.PKCS15,
            t0=t0,
        )

    def reset(self) -> None:
        """Reset, power on, or power off: for the card they are the same."""
        self._chip.reset()

    def process(self, raw: bytes) -> bytes:
        """Answer one command APDU."""
        return self._chip.process(raw)
