"""What a card family declares, and what a probe brings home.

A profile is data and dialogues; adding a family is adding a module that offers one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cardsession.core.dialogue import Dialogue
from cardsession.core.secret import Coding, Secret
from cardsession.core.signing import Algorithm
from cardsession.core.tries import Consent, Judged, PinStatus


@dataclass(frozen=True, slots=True)
class Pin:
    """One PIN of a card: its label on the bus, and how its reference data is formed."""

    label: str
    reference: int
    """P2 of VERIFY (ISO/IEC 7816-4 table 93)."""
    stored_length: int
    """Bytes that the card takes: always where there is padding, else at most."""
    pad: int | None
    """The byte that fills them; None: the passcode is sent as long as it is."""
    asking_is_free: bool
    """Whether an empty VERIFY costs no try. Never a default: each family cites its source."""
    min_length: int = 1
    """Fewer characters the card does not take, of an old passcode or a new one."""
    max_length: int | None = None
    """More characters neither; None: as many as `stored_length` bytes hold."""
    coding: Coding = Coding.ASCII
    """How the characters are said in those bytes."""
    path: bytes = b""
    """PKCS#15: the file to be selected before the PIN is used."""
    grants: bool = True
    """Whether it opens the authentication key: verifying it makes a session active."""
    verifiable: bool = True
    """A PUK is none: it is only ever used to set a new passcode."""
    tries_max: int | None = None
    """The most tries it can have, where the card tells."""

    @property
    def counter(self) -> int:
        """What the ledger calls its counter: its reference, and where it is. Two PINs in two
        directories may have the same reference (ISO/IEC 7816-4 clause 11.5.1): the success of one
        says nothing of the other's tries."""
        return int.from_bytes(self.path) << 8 | self.reference


@dataclass(frozen=True, slots=True)
class Key:
    """One private key of a card, under the slot of its certificate."""

    slot: str
    reference: int
    key_type: str
    """`rsa` or `ec`, as `Certificate.key_type` has it."""
    key_bits: int
    pin: str = "user"
    """The label of the PIN that guards it; "" if none does."""
    pin_always: bool = False
    """Whether the card wants the PIN for every signature (`SignWithPin`)."""
    path: bytes = b""
    """PKCS#15: the file to be selected before the key is used."""
    mechanisms: tuple[tuple[str, int], ...] = ()
    """PKCS#15: (algorithm, the card's reference of it), as its TokenInfo has them."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a first conversation with a card found; everything in it is a claim of the card.

    `identity` tells this card from any other ("" if nothing on it does), `serial` is the card's
    own identifier as hexadecimal digits, if it has one. `others` are references of PINs that we
    do not use and a rival may have left verified.
    `certificates` maps slots to DER; a slot that is missing was empty or unreadable.
    `layout` is the family's own: where on the card it found what.
    """

    profile: str
    identity: str = ""
    serial: str = ""
    pins: Mapping[str, Pin] = field(default_factory=dict)
    tries: Mapping[str, PinStatus] = field(default_factory=dict)
    certificates: Mapping[str, bytes] = field(default_factory=dict)
    others: tuple[int, ...] = ()
    series: str = ""
    """Where a declaration of the site gives one."""
    nhs: bool = False
    """Where a declaration of the site puts the card under the NHS's rules."""
    withheld: bool = False
    """The card refuses to show its holder's certificate here, over the contactless interface say:
    it need not be blank."""
    layout: object = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """One signature that is wanted."""

    slot: str
    algorithm: Algorithm
    digest: bytes
    key_bits: int
    """As the slot's certificate has it: the size of the modulus, or of the curve."""


class Profile(Protocol):
    """A card family's dialogues. Each begins by selecting its application (`sign` excepted): in
    another transaction another program may have selected another one."""

    @property
    def name(self) -> str:
        """The value of `Profile` on the bus."""

    def probe(self, atr: bytes) -> Dialogue[Probe | None]:
        """Who is this? None if the card is not of this family."""

    def certificates(self, probe: Probe) -> Dialogue[Mapping[str, bytes]]:
        """The certificates that the probe left for later, DER by slot."""

    def key(self, probe: Probe, slot: str) -> Key | None:
        """The private key of a certificate's slot, as far as it is known without a word said;
        None if there is none that signs."""

    def question(self, probe: Probe) -> Dialogue[Mapping[str, PinStatus]]:
        """The counters, asked anew where that is free, with nobody left verified."""

    def verify(self, probe: Probe, pin: Pin, secret: Secret, consent: Consent) -> Dialogue[Judged]:
        """One submission, guarded: at most one VERIFY."""

    def change(
        self, probe: Probe, pin: Pin, old: Secret, new: Secret, consent: Consent
    ) -> Dialogue[Judged]:
        """CHANGE REFERENCE DATA, guarded alike by the old passcode's counter: at most one."""

    def unblock(
        self, probe: Probe, pin: Pin, puk: Secret, new: Secret, consent: Consent
    ) -> Dialogue[Judged]:
        """RESET RETRY COUNTER, guarded alike by the PUK's counter: at most one."""

    def sign(self, probe: Probe, request: Request, *, fresh: bool) -> Dialogue[bytes]:
        """One signature with a key that the session's authority opens.

        `fresh`: nobody but us talked to the card since the PIN was verified, so its application
        need not be selected again. An ECDSA signature is DER. Failure: `NoSuchSlot`,
        `UnsupportedAlgorithm`, `NotVerified` (a key that wants its PIN each time, too).
        """

    def sign_with_pin(
        self, probe: Probe, request: Request, secret: Secret, consent: Consent
    ) -> Dialogue[tuple[Judged, bytes]]:
        """One VERIFY, guarded, and the one signature that it opens; b"" unless verified."""

    def release(self, probe: Probe) -> Dialogue[Mapping[str, PinStatus] | None]:
        """End every authority on the card; the counters after that. None: only a reset can."""


Recognised = tuple[Profile | None, Probe]
"""A family and what it found; no family: a card to be left alone."""
