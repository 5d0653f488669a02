"""What a card is made with: data only. What only PKCS#15 has is in `pkcs15.options`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final

from cardsession.virtual.pkcs15.options import Pkcs15Options


class Family(StrEnum):
    """What kind of card it is."""

    PIV = "piv"
    PKCS15 = "pkcs15"


class Algorithm(StrEnum):
    """Key types; PIV has those of SP 800-78-5 only."""

    RSA2048 = "rsa2048"
    RSA3072 = "rsa3072"
    RSA4096 = "rsa4096"
    P256 = "p256"
    P384 = "p384"


ELLIPTIC: Final = frozenset({Algorithm.P256, Algorithm.P384})
PIV_ALGORITHMS: Final = ELLIPTIC | {Algorithm.RSA2048, Algorithm.RSA3072}


class Slot(IntEnum):
    """Key references, SP 800-73-4 part 1 table 4b. A PKCS#15 card has the first two."""

    AUTHENTICATION = 0x9A
    SIGNATURE = 0x9C
    KEY_MANAGEMENT = 0x9D
    CARD_AUTHENTICATION = 0x9E


class TransmissionProtocol(StrEnum):
    """How APDUs go over the contacts (ISO/IEC 7816-3 clauses 10 and 11); the ATR tells."""

    T0 = "t0"
    T1 = "t1"


class PinPolicy(StrEnum):
    """PIN usage policy, as the discovery object tells it (SP 800-73-4 part 1 clause 3.3.2)."""

    APPLICATION = "application"
    GLOBAL_TOO = "global-too"
    GLOBAL_PRIMARY = "global-primary"


@dataclass(frozen=True, slots=True)
class Secrets:
    """PINs and PUK as text; not part of any repr."""

    pin: str = field(default="123456", repr=False)
    puk: str = field(default="12345678", repr=False)
    global_pin: str = field(default="654321", repr=False)
    signature_pin: str = field(default="246810", repr=False)


@dataclass(frozen=True, slots=True)
class CardOptions:
    """One card. `objects` overrides data objects by tag: bytes as answered, None for absent;
    on a PKCS#15 card it is `pkcs15.files`. The holder, the keys, the life of the certificates,
    the tries and the transport are of both families; what is said of PIV is ignored there.

    `days_left` may be negative (an expired card). `pin_digits_only` off lets a PIN be any eight
    bytes; with it, `format_costs_a_try` chooses 63CX over 6A80, both of which the standard allows.
    A card that speaks T=0 takes no extended length fields, whatever `extended` says.
    """

    family: Family = Family.PIV
    holder: str = "555012345678"
    organisation: str = "nhs"
    unit: str = "people"
    guid: bytes | None = None
    algorithm: Algorithm = Algorithm.P256
    slots: tuple[Slot, ...] = tuple(Slot)
    valid_days: int = 1095
    days_left: int = 730
    compressed: bool = False
    chuid: bool = True
    discovery: bool = True
    pin_policy: PinPolicy = PinPolicy.APPLICATION
    tries_limit: int = 3
    tries: int | None = None
    puk_limit: int = 3
    pin_digits_only: bool = True
    format_costs_a_try: bool = False
    deauthentication: bool = True
    selected_by_default: bool = True
    extended: bool = True
    chaining: bool = True
    protocol: TransmissionProtocol = TransmissionProtocol.T1
    atr: bytes | None = None
    objects: dict[int, bytes | None] = field(default_factory=dict)
    pkcs15: Pkcs15Options = field(default_factory=Pkcs15Options)
