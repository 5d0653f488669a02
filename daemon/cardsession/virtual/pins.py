"""PINs and PUK: VERIFY, CHANGE REFERENCE DATA, RESET RETRY COUNTER (SP 800-73-4 part 2, 3.2)."""

from __future__ import annotations

from typing import Final

from cardsession.virtual.apdu import SW, Command, Response
from cardsession.virtual.book import Book, Kind, Outcome
from cardsession.virtual.options import CardOptions, PinPolicy, Secrets
from cardsession.virtual.reference import SIZE, Reference, looks_like_pin, padded

GLOBAL_PIN: Final = 0x00
PIN: Final = 0x80
PUK: Final = 0x81
_DEAUTHENTICATE: Final = 0xFF


class Pins:
    """The references of one card and its book.

    `fresh` is true between a right VERIFY and the next command, whatever that is.
    """

    def __init__(self, options: CardOptions, secrets: Secrets, book: Book) -> None:
        self.book = book
        self.fresh = False
        self._options = options
        limit = options.tries_limit
        self._references = {
            PIN: Reference(padded(secrets.pin), limit, options.tries),
            PUK: Reference(padded(secrets.puk), options.puk_limit),
        }
        if options.pin_policy is not PinPolicy.APPLICATION:
            self._references[GLOBAL_PIN] = Reference(padded(secrets.global_pin), limit)

    @property
    def satisfied(self) -> bool:
        """Does the PIN access rule hold: the application's PIN, or the global one if there is."""
        return any(ref.verified for at, ref in self._references.items() if at != PUK)

    def forget(self, *, platform: bool) -> None:
        """Drop the security status. The global PIN's is the platform's and outlives a SELECT."""
        self.fresh = False
        for at, reference in self._references.items():
            if platform or at != GLOBAL_PIN:
                reference.verified = False

    @property
    def primary(self) -> int:
        """The reference that is meant when none is named."""
        return PIN

    def replace(self, at: int, text: str) -> None:
        """Give a reference a new value, as if at the factory. KeyError, ValueError."""
        reference = self._references[at]
        reference.replace(padded(text))
        reference.verified = False

    def reference(self, at: int) -> Reference:
        """The reference with that number; KeyError if the card has none."""
        return self._references[at]

    def as_dict(self) -> dict[str, object]:
        """{"80": {"left": 3, "limit": 3, "verified": false}, ...}"""
        return {
            f"{at:02X}": {"left": ref.left, "limit": ref.limit, "verified": ref.verified}
            for at, ref in self._references.items()
        }

    def verify(self, command: Command) -> Response:
        """VERIFY, clause 3.2.1. Without data it asks (P1 00) or de-authenticates (P1 FF)."""
        outcome, sw = self._verify(command)
        self.book.judged(Kind.VERIFY, command.p2, outcome)
        self.fresh = outcome is Outcome.RIGHT
        return Response(sw)

    def _verify(self, command: Command) -> tuple[Outcome, int]:
        reference = self._references.get(command.p2)
        if reference is None or command.p2 == PUK:
            return Outcome.REFUSED, SW.NO_REFERENCE
        if command.p1 == _DEAUTHENTICATE and self._options.deauthentication and not command.data:
            reference.verified = False
            return Outcome.DEAUTHENTICATED, SW.OK
        if command.p1:
            return Outcome.REFUSED, SW.WRONG_P1P2
        if not command.data:
            return Outcome.STATUS, _status(reference)
        return self._judge(command.p2, command.data)

    def _judge(self, at: int, value: bytes) -> tuple[Outcome, int]:
        """A blocked reference says so whatever it is sent; no comparison is made."""
        reference = self._references[at]
        if reference.blocked:
            return Outcome.BLOCKED, SW.BLOCKED
        if not self._well_formed(at, value):
            return self._badly_formed(reference)
        return _try(reference, value)

    def change(self, command: Command) -> Response:
        """CHANGE REFERENCE DATA, clause 3.2.2: old value, then the new one, eight bytes each."""
        outcome, sw = self._change(command)
        self.book.judged(Kind.CHANGE, command.p2, outcome)
        return Response(sw)

    def _change(self, command: Command) -> tuple[Outcome, int]:
        reference = self._references.get(command.p2)
        if reference is None:
            return Outcome.REFUSED, SW.NO_REFERENCE
        if command.p1:
            return Outcome.REFUSED, SW.WRONG_P1P2
        if reference.blocked:
            return Outcome.BLOCKED, SW.BLOCKED
        old, new = command.data[:SIZE], command.data[SIZE:]
        if not (self._well_formed(command.p2, old) and self._well_formed(command.p2, new)):
            return self._badly_formed(reference)
        outcome, sw = _try(reference, old)
        if outcome is Outcome.RIGHT:
            reference.replace(new)
        if command.p2 == PUK:
            reference.verified = False
        return outcome, sw

    def unblock(self, command: Command) -> Response:
        """RESET RETRY COUNTER, clause 3.2.3: PUK and new PIN; whether PIN is verified stays."""
        outcome, sw = self._unblock(command)
        self.book.judged(Kind.RESET, PUK, outcome)
        return Response(sw)

    def _unblock(self, command: Command) -> tuple[Outcome, int]:
        if command.p1:
            return Outcome.REFUSED, SW.WRONG_P1P2
        if command.p2 != PIN:
            return Outcome.REFUSED, SW.NO_REFERENCE
        puk = self._references[PUK]
        if puk.blocked:
            return Outcome.BLOCKED, SW.BLOCKED
        value, new = command.data[:SIZE], command.data[SIZE:]
        if not (self._well_formed(PUK, value) and self._well_formed(PIN, new)):
            return self._badly_formed(puk)
        outcome, sw = _try(puk, value)
        # A PUK opens nothing by itself: it has no security status that lasts.
        puk.verified = False
        if outcome is Outcome.RIGHT:
            self._references[PIN].replace(new)
        return outcome, sw

    def _well_formed(self, at: int, value: bytes) -> bool:
        """Clause 2.4.3: a PUK is any eight bytes, a PIN six to eight digits filled with FF."""
        if at == PUK or not self._options.pin_digits_only:
            return len(value) == SIZE
        return looks_like_pin(value)

    def _badly_formed(self, reference: Reference) -> tuple[Outcome, int]:
        """Both answers are in the standard: 6A80 changes nothing, 63CX counts as a wrong value."""
        if not self._options.format_costs_a_try:
            return Outcome.REFUSED, SW.WRONG_DATA
        return _miss(reference)


def _status(reference: Reference) -> int:
    if reference.verified:
        return SW.OK
    return SW.BLOCKED if reference.blocked else SW.TRIES | min(reference.left, 0xF)


def _try(reference: Reference, value: bytes) -> tuple[Outcome, int]:
    """One comparison: the outcome and its status word, 63C0 when this try was the last."""
    if reference.compare(value):
        return Outcome.RIGHT, SW.OK
    return Outcome.WRONG, SW.TRIES | min(reference.left, 0xF)


def _miss(reference: Reference) -> tuple[Outcome, int]:
    reference.left, reference.verified = reference.left - 1, False
    return Outcome.WRONG, SW.TRIES | min(reference.left, 0xF)
