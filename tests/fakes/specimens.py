"""Cards for the property tests: each a line here, and what is true of it at every moment.

The truth is the virtual card's own: its counters, its book, who is verified. A specimen writes
down when each counter moved, and which tries were a rival's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

from cardsession.cards.declaration import Declaration
from cardsession.virtual import card
from cardsession.virtual.card import VirtualCard
from cardsession.virtual.identity import Authority, Identity
from cardsession.virtual.options import CardOptions, Family, PinPolicy, Secrets, Slot
from cardsession.virtual.pkcs15.options import AID as PKCS15_AID
from cardsession.virtual.pkcs15.options import EmptyVerify, Pkcs15Options
from cardsession.virtual.reference import padded
from fakes.cards import made_at_midnight

PASSCODES = ("73194682", "73195555", "731966")
"""What a card's PIN may be in the course of a day: the first one, and new ones."""
POOR = ("73", "7319abcd")
"""No site takes these for a new PIN; a PUK is not the site's matter."""
PUK = "73198888"
COMMON = {"user", "puk"}
"""Labels of the PINs that every card has."""
SELECT = {
    Family.PIV: bytes.fromhex("00A404000BA000000308000010000100"),
    Family.PKCS15: bytes([0x00, 0xA4, 0x04, 0x0C, len(PKCS15_AID)]) + PKCS15_AID,
}
SELECT_ANOTHER = bytes.fromhex("00A4040008A000000151000000")
SUBMISSIONS = {0x20, 0x24, 0x2C}

DECLARED = Declaration(label="asked", asking_is_free=True, source="a test")
"""The cards of this label may be asked for their counters."""


@dataclass(frozen=True)
class Recipe:
    """How a card is made. `pins`: its PINs' references by label; `free`: those that may be asked
    about; `puk`: the reference of its PUK."""

    name: str
    options: CardOptions
    pins: Mapping[str, int]
    free: frozenset[int]
    puk: int


def _piv(name: str, pins: tuple[int, ...] = (0x80,), **options: Any) -> Recipe:
    chosen = CardOptions(slots=(Slot.AUTHENTICATION, Slot.SIGNATURE))
    labels = ("user", "global" if pins[0] == 0x80 else "application")
    named = dict(zip(labels, pins, strict=False)) | {"puk": 0x81}
    return Recipe(name, replace(chosen, **options), named, frozenset(pins), 0x81)


def _pkcs15(name: str, *, free: bool = False, **options: Any) -> Recipe:
    chosen = Pkcs15Options(label="asked" if free else "unasked", **options)
    slots = (Slot.AUTHENTICATION, Slot.SIGNATURE)
    card = CardOptions(family=Family.PKCS15, slots=slots, pkcs15=chosen)
    pins = {"user": 0x81, "puk": 0x83} | ({"signature": 0x82} if chosen.signature_pin else {})
    asked = frozenset({0x81, 0x82, 0x83}) if free else frozenset()
    return Recipe(name, card, pins, asked, 0x83)


_ALL = (
    _piv("piv"),
    _piv("piv twin", tries_limit=5),
    _pkcs15("pkcs15 that counts questions", empty_verify=EmptyVerify.COSTS),
    _piv("piv without CHUID", chuid=False),
    _piv("piv with global PIN", (0x80, 0x00), pin_policy=PinPolicy.GLOBAL_TOO),
    _piv("piv with primary global PIN", (0x00, 0x80), pin_policy=PinPolicy.GLOBAL_PRIMARY),
    _piv("piv without de-authentication", deauthentication=False),
    _piv("piv without anything", chuid=False, slots=()),
    _pkcs15("pkcs15", free=True),
    _pkcs15("pkcs15 with two PINs", free=True, signature_pin=True),
    _pkcs15("pkcs15 not to be asked", signature_pin=True, drops_on_select=False),
    _pkcs15("pkcs15 that does not tell", free=True, empty_verify=EmptyVerify.UNTOLD),
)
RECIPES = {recipe.name: recipe for recipe in _ALL}
"""One card without identity at most: nothing could tell two of them apart."""

_authority: list[Authority] = []
_identities: dict[str, Identity] = {}


def _made(recipe: Recipe) -> VirtualCard:
    """A new card, of an identity that is made once: a certificate of another length would be
    another number of commands, and a run that cannot be repeated."""
    if not _authority:
        _authority.append(Authority.make())
    number = list(RECIPES).index(recipe.name) + 1
    options = replace(recipe.options, guid=bytes([0xA0 + number]) * 16)
    pkcs15 = replace(options.pkcs15, serial=bytes([0xB0 + number]) * 8)
    first = PASSCODES[0]
    secrets = Secrets(pin=first, puk=PUK, global_pin=first, signature_pin=first)

    def known(options: CardOptions, authority: Authority) -> Identity:
        if recipe.name not in _identities:
            _identities[recipe.name] = made_at_midnight(options, authority)
        return _identities[recipe.name]

    with mock.patch.object(card, "personalise", known):
        return VirtualCard(replace(options, pkcs15=pkcs15), secrets, _authority[0])


@dataclass(eq=False)
class Specimen:
    """One card and its history; see `fakes.pcscd.Chip`."""

    recipe: Recipe
    clock: Callable[[], int]
    card: VirtualCard = field(init=False)
    history: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """By reference: since when (microseconds) the counter had which value."""
    by_us: set[int] = field(default_factory=set)
    """References that we verified, and that are verified still."""
    rival_wrong: int = 0
    """Tries that a rival took away."""

    def __post_init__(self) -> None:
        self.card = _made(self.recipe)
        self.history = {ref: [(0, self.left(ref))] for ref in self.references}

    def __repr__(self) -> str:
        return f"<{self.recipe.name}>"

    @property
    def references(self) -> set[int]:
        """Of all its PINs."""
        return set(self.recipe.pins.values())

    @property
    def atr(self) -> bytes:
        """Answer to reset."""
        return self.card.atr

    @property
    def serial(self) -> str:
        """As the bus has it."""
        piv = self.recipe.options.family is Family.PIV
        hidden = piv and not self.recipe.options.chuid
        return "" if hidden else self.card.applet.serial.hex().upper()

    @property
    def der(self) -> bytes | None:
        """The holder's certificate."""
        return self.card.identity.certificates.get(Slot.AUTHENTICATION)

    @property
    def tells_itself(self) -> bool:
        """Whether anything on it tells it from another."""
        return bool(self.serial or self.der)

    @property
    def other(self) -> int:
        """The reference of its second PIN; of the only one, if it has one."""
        pins = self.recipe.pins
        return next((at for label, at in pins.items() if label not in COMMON), pins["user"])

    # its truth

    def left(self, reference: int) -> int:
        """Tries left."""
        return self.card.pins.reference(reference).left

    def limit(self, reference: int) -> int:
        """The most there can be."""
        return self.card.pins.reference(reference).limit

    def verified(self) -> set[int]:
        """References that are verified."""
        return {ref for ref in self.references if self.card.pins.reference(ref).verified}

    def had(self, reference: int, usec: int) -> set[int]:
        """What the counter was at that microsecond: both, if it moved in it."""
        found: set[int] = set()
        for since, value in self.history[reference]:
            if since < usec:
                found = {value}
            elif since == usec:
                found.add(value)
        return found

    def had_since(self, reference: int, usec: int) -> set[int]:
        """What it was then, or at any time after that."""
        later = {value for since, value in self.history[reference] if since >= usec}
        return self.had(reference, usec) | later

    def encoded(self, text: str) -> bytes:
        """A passcode as it goes over the wire; b"" if it cannot."""
        form = getattr(self.card.pins, "format", None)
        try:
            return form.encode(text) if form else padded(text)
        except ValueError:
            return b""

    def is_right(self, reference: int, text: str) -> bool:
        """Whether that is its passcode now."""
        return self.card.pins.reference(reference)._value == self.encoded(text)

    def passcode(self, reference: int) -> str:
        """Its passcode now."""
        return next(each for each in (*PASSCODES, *POOR, PUK) if self.is_right(reference, each))

    def _note(self) -> None:
        now = self.clock()
        for reference, history in self.history.items():
            left = self.left(reference)
            if history[-1][1] != left:
                history.append((now, left))
        self.by_us &= self.verified()

    # what is done to it

    def reset(self) -> None:
        """It loses its power."""
        self.card.reset()
        self.by_us.clear()

    def process(self, apdu: bytes) -> bytes:
        """One of our commands."""
        before = self.verified()
        answer = self.card.process(apdu)
        self._note()
        self.by_us |= self.verified() - before
        if carries_secret(apdu) and answer[-2:] == b"\x90\x00":
            self.by_us |= self.verified() & {apdu[3]}
        return answer

    def rival(self, *apdus: bytes) -> None:
        """A rival's commands."""
        wrong = self.card.book.wrong()
        for apdu in apdus:
            answer = self.card.process(apdu)
            if carries_secret(apdu) and answer[-2:] == b"\x90\x00":
                self.by_us.discard(apdu[3])
        self.rival_wrong += self.card.book.wrong() - wrong
        self._note()

    def worn(self, reference: int, left: int) -> None:
        """What was done to it on another day."""
        self.card.pins.reference(reference).left = left
        self.history[reference] = [(0, left)]

    def verify(self, reference: int, text: str) -> tuple[bytes, bytes]:
        """The commands of a rival that verifies."""
        value = self.encoded(text)
        command = bytes([0x00, 0x20, 0x00, reference, len(value)]) + value
        return SELECT[self.recipe.options.family], command

    def unblock(self, reference: int, puk: str) -> tuple[bytes, bytes]:
        """The commands of a rival that unblocks, and keeps the passcode as it was."""
        value = self.encoded(puk) + self.encoded(self.passcode(reference))
        command = bytes([0x00, 0x2C, 0x00, reference, len(value)]) + value
        return SELECT[self.recipe.options.family], command


def carries_secret(apdu: bytes) -> bool:
    """Whether a command can cost a try."""
    return len(apdu) > 5 and apdu[1] in SUBMISSIONS


def is_question(apdu: bytes) -> bool:
    """Whether it asks for a counter."""
    return len(apdu) <= 5 and apdu[1:3] == b"\x20\x00"


def count_told(answer: bytes) -> int | None:
    """The count that an answer to one of those tells."""
    sw = int.from_bytes(answer[-2:], "big")
    if sw & 0xFFF0 == 0x63C0:
        return sw & 0xF
    return 0 if sw == 0x6983 else None
