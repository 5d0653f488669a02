"""What a card family declares, and what a probe brings home.

A profile is data and dialogues; adding a family is adding a module that offers one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cardsession.core.dialogue import Dialogue
from cardsession.core.secret import Secret
from cardsession.core.tries import Consent, Judged, PinStatus


@dataclass(frozen=True, slots=True)
class Pin:
    """One PIN of a card: its label on the bus, and how its reference data is formed."""

    label: str
    reference: int
    """P2 of VERIFY (ISO/IEC 7816-4 table 93)."""
    stored_length: int
    """Bytes that the card takes, always."""
    pad: int
    """The byte that fills them."""
    asking_is_free: bool
    """Whether an empty VERIFY costs no try. Never a default: each family cites its source."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a first conversation with a card found; everything in it is a claim of the card.

    `identity` tells this card from any other ("" if nothing on it does), `serial` is the card's
    own identifier as hexadecimal digits, if it has one. `others` are references of PINs that we
    do not use and a rival may have left verified.
    `certificates` maps slots to DER; a slot that is missing was empty or unreadable.
    """

    profile: str
    identity: str = ""
    serial: str = ""
    pins: Mapping[str, Pin] = field(default_factory=dict)
    tries: Mapping[str, PinStatus] = field(default_factory=dict)
    certificates: Mapping[str, bytes] = field(default_factory=dict)
    others: tuple[int, ...] = ()


class Profile(Protocol):
    """A card family's dialogues. Each begins by selecting its application: in another
    transaction another program may have selected another one."""

    @property
    def name(self) -> str:
        """The value of `Profile` on the bus."""

    def probe(self) -> Dialogue[Probe | None]:
        """Who is this? None if the card is not of this family."""

    def certificates(self, probe: Probe) -> Dialogue[Mapping[str, bytes]]:
        """The certificates that the probe left for later, DER by slot."""

    def question(self, probe: Probe) -> Dialogue[Mapping[str, PinStatus]]:
        """The counters, asked anew where that is free, with nobody left verified."""

    def verify(self, probe: Probe, pin: Pin, secret: Secret, consent: Consent) -> Dialogue[Judged]:
        """One submission, guarded: at most one VERIFY."""

    def release(self, probe: Probe) -> Dialogue[Mapping[str, PinStatus] | None]:
        """End every authority on the card; the counters after that. None: only a reset can."""


Recognised = tuple[Profile | None, Probe]
"""A family and what it found; no family: a card to be left alone."""
