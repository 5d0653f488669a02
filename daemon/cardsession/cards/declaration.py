"""What is known of certain cards beyond what they tell: data, each with its source.

A declaration names the cards that it is about, and says what holds for them. The built-in ones
are in `declared`; a site adds its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

READINGS = frozenset({"", "piv", "pkcs15", "unknown"})
"""What `read_as` may be: left open, a family, or "leave this card alone"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One declaration: it applies where every criterion that it gives is met.

    One without criteria would apply to every card there is: it applies to none.
    """

    source: str
    """Where this is known from: a document, a clause, a file of a public project."""

    atr: bytes = b""
    atr_mask: bytes = b""
    """As long as `atr`; a bit that is 0 is not compared. Empty: all of them are."""
    aid: bytes = b""
    """The application that was selected, or that EF.DIR names, begins with this."""
    manufacturer: str = ""
    """TokenInfo's manufacturerID, exactly."""
    label: str = ""
    """TokenInfo's label, exactly."""
    serial_prefix: str = ""
    """The card's serial number begins with these hexadecimal digits (PIV: its GUID's)."""
    profile: str = ""
    """The family that read the card."""

    asking_is_free: bool | None = None
    """Whether an empty VERIFY costs no try; None says nothing."""
    series: str = ""
    nhs: bool | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    """A PIN's own label, or its reference as two hexadecimal digits, to its label on the bus."""
    read_as: str = ""
    """One of `READINGS`. By the ATR only: it is asked for before a word is said to the card."""
    application: bytes = b""
    """The AID to be selected where EF.DIR is missing."""
    mechanisms: Mapping[str, int] = field(default_factory=dict)
    """`rsa-pkcs1`, `rsa-raw`, `ecdsa` to the card's reference of it (tag 80 of MANAGE SECURITY
    ENVIRONMENT), where the card does not say so itself."""

    def __post_init__(self) -> None:
        if not self.source:
            raise ValueError("a declaration without a source")
        if self.atr_mask and len(self.atr_mask) != len(self.atr):
            raise ValueError("an ATR mask is as long as its ATR")
        if self.read_as not in READINGS:
            raise ValueError(f"a card is not read as {self.read_as!r}")

    @property
    def by_atr_alone(self) -> bool:
        """Whether the ATR is all that it asks for: it holds before a word was said."""
        return bool(self.atr) and not (
            self.aid or self.manufacturer or self.label or self.serial_prefix or self.profile
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What was seen of a card so far; what is empty was not seen."""

    atr: bytes = b""
    aids: Sequence[bytes] = ()
    manufacturer: str = ""
    label: str = ""
    serial: str = ""
    profile: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """All that the declarations say of one card; of each fact, the first that says it."""

    asking_is_free: bool | None = None
    series: str = ""
    nhs: bool | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    read_as: str = ""
    application: bytes = b""
    mechanisms: Mapping[str, int] = field(default_factory=dict)


def applies(declaration: Declaration, seen: Sighting) -> bool:
    """Whether every criterion that it gives is met, and it gives one."""
    criteria = (
        (declaration.atr, _atr_matches(declaration, seen.atr)),
        (declaration.aid, any(aid.startswith(declaration.aid) for aid in seen.aids)),
        (declaration.manufacturer, seen.manufacturer == declaration.manufacturer),
        (declaration.label, seen.label == declaration.label),
        (declaration.serial_prefix, _serial_matches(declaration.serial_prefix, seen.serial)),
        (declaration.profile, seen.profile == declaration.profile),
    )
    given = [met for criterion, met in criteria if criterion]
    return bool(given) and all(given)


def matching(declarations: Sequence[Declaration], seen: Sighting) -> Declared:
    """What the declarations that apply say together: of each fact, the first one wins."""
    found = [each for each in declarations if applies(each, seen)]
    labels: dict[str, str] = {}
    for each in reversed(found):
        labels.update(each.labels)
    free = (each.asking_is_free for each in found if each.asking_is_free is not None)
    nhs = (each.nhs for each in found if each.nhs is not None)
    return Declared(
        asking_is_free=next(free, None),
        series=next((each.series for each in found if each.series), ""),
        nhs=next(nhs, None),
        labels=labels,
        read_as=next((each.read_as for each in found if each.read_as), ""),
        application=next((each.application for each in found if each.application), b""),
        mechanisms=next((each.mechanisms for each in found if each.mechanisms), {}),
    )


def _atr_matches(declaration: Declaration, atr: bytes) -> bool:
    mask = declaration.atr_mask or b"\xff" * len(declaration.atr)
    return len(atr) == len(declaration.atr) and all(
        (ours ^ theirs) & bits == 0
        for ours, theirs, bits in zip(declaration.atr, atr, mask, strict=True)
    )


def _serial_matches(prefix: str, serial: str) -> bool:
    return serial.upper().startswith(prefix.upper())
