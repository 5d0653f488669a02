"""PINs and PUK of a PKCS#15 card: VERIFY, CHANGE REFERENCE DATA, RESET RETRY COUNTER.

ISO/IEC 7816-4 clauses 11.6.6, 11.6.7 and 11.6.10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cardsession.virtual.apdu import SW, Command, Response
from cardsession.virtual.book import Book, Kind, Outcome
from cardsession.virtual.options import CardOptions, Secrets
from cardsession.virtual.pkcs15.options import EmptyVerify
from cardsession.virtual.pkcs15.passcode import Format
from cardsession.virtual.reference import Reference

_DEAUTHENTICATE: Final = 0xFF
_OLD_AND_NEW: Final = 0x00
_PUK_ONLY: Final = 0x01
_NIBBLE: Final = 0xF

Judged = tuple[Outcome, int]


@dataclass(slots=True)
class Pin:
    """One reference on the card: its counter, and what may be done with it.

    `fresh` is true from a right VERIFY to the one signature that it permits.
    """

    reference: Reference
    usable: bool = True
    changeable: bool = True
    fresh: bool = False

    def drop(self) -> None:
        """Its security status is lost."""
        self.reference.verified = self.fresh = False


class Pins15:
    """The references of one card and its book. `user`, `signature` and `puk` are numbers."""

    def __init__(self, options: CardOptions, secrets: Secrets, book: Book) -> None:
        chosen = options.pkcs15
        self.book = book
        self.format = Format.of(chosen)
        self.user = self.primary = chosen.pin_reference
        self.signature = chosen.signature_pin_reference if chosen.signature_pin else self.user
        self.puk = chosen.puk_reference if chosen.puk else None
        self._options = options
        self._pins: dict[int, Pin] = {}
        self._add(self.user, secrets.pin, options.tries_limit, options.tries)
        self._pins[self.user].usable = chosen.pin_initialized
        self._pins[self.user].changeable = chosen.pin_change
        if chosen.signature_pin:
            self._add(self.signature, secrets.signature_pin, options.tries_limit, None)
        if self.puk is not None:
            self._add(self.puk, secrets.puk, options.puk_limit, None)

    def _add(self, at: int, text: str, limit: int, left: int | None) -> None:
        if at in self._pins:
            raise ValueError(f"reference {at:02X} is given to two PINs")
        self._pins[at] = Pin(Reference(self.format.encode(text), limit, left))

    @property
    def satisfied(self) -> bool:
        """Is any PIN verified? A PUK opens nothing."""
        return any(pin.reference.verified for at, pin in self._pins.items() if at != self.puk)

    def verified(self, at: int) -> bool:
        """Is that PIN verified?"""
        return self._pins[at].reference.verified

    def spend(self, at: int) -> bool:
        """Use up the freshness of a VERIFY (userConsent); was there any?"""
        fresh, self._pins[at].fresh = self._pins[at].fresh, False
        return fresh

    def forget(self) -> None:
        """Drop every security status."""
        for pin in self._pins.values():
            pin.drop()

    def reference(self, at: int) -> Reference:
        """The reference with that number; KeyError if the card has none."""
        return self._pins[at].reference

    def replace(self, at: int, text: str) -> None:
        """Give a reference a new value, as if at the factory. KeyError, ValueError."""
        pin = self._pins[at]
        pin.reference.replace(self.format.encode(text))
        pin.usable = True
        pin.drop()

    def as_dict(self) -> dict[str, object]:
        """{"81": {"left": 3, "limit": 3, "verified": false}, ...}"""
        return {
            f"{at:02X}": {
                "left": pin.reference.left,
                "limit": pin.reference.limit,
                "verified": pin.reference.verified,
            }
            for at, pin in self._pins.items()
        }

    def verify(self, command: Command, *, here: bool) -> Response:
        """VERIFY. `here`: is the DF current that the PINs belong to?"""
        outcome, sw = self._verify(command, here)
        self.book.judged(Kind.VERIFY, command.p2, outcome)
        return Response(sw)

    def _verify(self, command: Command, here: bool) -> Judged:
        pin = self._pins.get(command.p2) if here else None
        if pin is None:
            return Outcome.REFUSED, SW.NO_REFERENCE
        if command.p1 == _DEAUTHENTICATE and self._options.deauthentication and not command.data:
            pin.drop()
            return Outcome.DEAUTHENTICATED, SW.OK
        if command.p1:
            return Outcome.REFUSED, SW.WRONG_P1P2
        if not command.data:
            return self._asked(pin)
        outcome, sw = self._judge(pin, command.data)
        pin.fresh = outcome is Outcome.RIGHT
        return outcome, sw

    def _asked(self, pin: Pin) -> Judged:
        """A VERIFY without data. Only `costs` takes a try, and only where one is left."""
        mode, reference = self._options.pkcs15.empty_verify, pin.reference
        if mode is EmptyVerify.WRONG_LENGTH:
            return Outcome.REFUSED, SW.WRONG_LENGTH
        if mode is EmptyVerify.WRONG_PARAMETERS:
            return Outcome.REFUSED, SW.WRONG_P1P2
        if not pin.usable:
            return Outcome.STATUS, SW.CONDITIONS
        if mode is EmptyVerify.COSTS:
            return _blocked() if reference.blocked else _miss(pin, counted=False)
        if reference.verified:
            return Outcome.STATUS, SW.OK
        if reference.blocked:
            return Outcome.STATUS, SW.BLOCKED
        if mode is EmptyVerify.UNTOLD:
            return Outcome.STATUS, SW.FAILED
        return Outcome.STATUS, _tries(reference)

    def _judge(self, pin: Pin, value: bytes) -> Judged:
        """One comparison, unless the reference is unusable, blocked, or the value no PIN."""
        if not pin.usable:
            return Outcome.REFUSED, SW.CONDITIONS
        if pin.reference.blocked:
            return _blocked()
        if (refusal := self._malformed(value)) is not None:
            return self._badly_formed(pin, refusal)
        if pin.reference.compare(value):
            return Outcome.RIGHT, SW.OK
        pin.drop()
        return Outcome.WRONG, _tries(pin.reference)

    def change(self, command: Command, *, here: bool) -> Response:
        """CHANGE REFERENCE DATA with P1 00: the old value, then the new one."""
        outcome, sw = self._change(command, here)
        self.book.judged(Kind.CHANGE, command.p2, outcome)
        return Response(sw)

    def _change(self, command: Command, here: bool) -> Judged:
        pin = self._pins.get(command.p2) if here else None
        if pin is None:
            return Outcome.REFUSED, SW.NO_REFERENCE
        if command.p1 != _OLD_AND_NEW:
            return Outcome.REFUSED, SW.WRONG_P1P2
        if not pin.changeable:
            return Outcome.REFUSED, SW.CONDITIONS
        if pin.reference.blocked:
            return _blocked()
        # The card knows how long its own value is: what follows is the new one.
        old, new = command.data[: pin.reference.size], command.data[pin.reference.size :]
        if (refusal := self._malformed(new)) is not None:
            return self._badly_formed(pin, refusal)
        outcome, sw = self._judge(pin, old)
        if outcome is Outcome.RIGHT:
            pin.reference.replace(new)
            # To have known the old value is no VERIFY.
            pin.drop()
        return outcome, sw

    def unblock(self, command: Command, *, here: bool) -> Response:
        """RESET RETRY COUNTER with P1 00 (PUK and new PIN) or 01 (PUK alone)."""
        outcome, sw = self._unblock(command, here)
        # What is judged is the PUK; a card without one notes it on the PIN.
        self.book.judged(Kind.RESET, command.p2 if self.puk is None else self.puk, outcome)
        return Response(sw)

    def _unblock(self, command: Command, here: bool) -> Judged:
        pin = self._pins.get(command.p2) if here and command.p2 != self.puk else None
        if pin is None:
            return Outcome.REFUSED, SW.NO_REFERENCE
        if self.puk is None:
            return Outcome.REFUSED, SW.CONDITIONS
        if command.p1 not in {_OLD_AND_NEW, _PUK_ONLY}:
            return Outcome.REFUSED, SW.WRONG_P1P2
        return self._with_puk(self._pins[self.puk], pin, command)

    def _with_puk(self, puk: Pin, pin: Pin, command: Command) -> Judged:
        size = puk.reference.size
        value, new = command.data[:size], command.data[size:]
        if puk.reference.blocked:
            return _blocked()
        if command.p1 == _PUK_ONLY:
            refusal = SW.WRONG_LENGTH if new else None
        else:
            refusal = self._malformed(new)
        if refusal is not None:
            return self._badly_formed(puk, refusal)
        outcome, sw = self._judge(puk, value)
        puk.drop()
        if outcome is Outcome.RIGHT:
            if new:
                pin.reference.replace(new)
                pin.usable = True
            pin.reference.left = pin.reference.limit
            pin.drop()
        return outcome, sw

    def _malformed(self, value: bytes) -> SW | None:
        """Why the value can be no PIN of this card: its length, or what it is made of."""
        if len(value) not in self.format.sizes():
            return SW.WRONG_LENGTH
        if self._options.pin_digits_only and not self.format.digits_only(value):
            return SW.WRONG_DATA
        return None

    def _badly_formed(self, pin: Pin, refusal: SW) -> Judged:
        """The standard allows both: refused for nothing, or counted as a wrong value."""
        if not self._options.format_costs_a_try or pin.reference.blocked:
            return Outcome.REFUSED, refusal
        return _miss(pin)


def _tries(reference: Reference) -> int:
    return SW.TRIES | min(reference.left, _NIBBLE)


def _blocked() -> Judged:
    return Outcome.BLOCKED, SW.BLOCKED


def _miss(pin: Pin, *, counted: bool = True) -> Judged:
    """One try less; `counted` tells whether the answer says how many are left."""
    pin.reference.left -= 1
    pin.drop()
    return Outcome.WRONG, _tries(pin.reference) if counted else SW.FAILED
