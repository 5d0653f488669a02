"""Which of a card's PINs, keys and certificates is what: the contract's slots and labels.

A card links them: a certificate and its private key have the same `iD`, a key names its PIN by
`authId`, a PIN names what unblocks it likewise (ISO/IEC 7816-15:2016 clause 8.2). Where it says
nothing, the order of its directories decides.

Slots, each for the first certificate that fits, certification authorities left out:
- `authentication`: its key signs, and not for content commitment; one that does not want its PIN
  each time comes first. If every key that signs is for content commitment: the first of those.
- `signature`: its key signs, for content commitment or with the PIN each time.
- `encryption`: its key deciphers and does not sign.
- If the card shows no key at all, labels decide: those that say "auth" (else the first one),
  "sign", and "crypt" or "cipher".
- the rest have their own labels, as slugs.

PINs:
- `user`: the one that guards the authentication key; else the first that is neither a security
  officer's nor unblocks others.
- `signature`: the one that guards the signature key, if it is another one (if the card shows no
  key at all: another one whose label says "sign").
- `puk`: the one that unblocks `user`; else the only one that unblocks at all.
- the rest have their own labels, as slugs. A declaration's labels come before all of this.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from cardsession.cards.declaration import Declared, Sighting
from cardsession.cards.profile import Key, Pin
from cardsession.core.secret import Coding

from .directory import Contents
from .files import Home, Manner
from .objects import (
    AlgorithmInfo,
    AuthenticationObject,
    CertificateObject,
    PinFlag,
    PrivateKey,
    Reference,
)

SLOTS = ("authentication", "signature", "encryption", "card-authentication")
LABELS = ("user", "signature", "global", "puk")
NO_REFERENCE = -1
"""A mechanism that the card knows and has no reference for."""
MECHANISMS = {
    0x0001: "rsa-pkcs1",
    0x0003: "rsa-raw",
    0x0040: "rsa-pkcs1-sha256",
    0x0041: "rsa-pkcs1-sha384",
    0x0042: "rsa-pkcs1-sha512",
    0x1041: "ecdsa",
    0x1044: "ecdsa-sha256",
    0x1045: "ecdsa-sha384",
    0x1046: "ecdsa-sha512",
}
"""PKCS #11's CKM numbers, as TokenInfo has them."""
DATA_LIMIT = 64
"""Bytes of a passcode in a command; the contract has none that is longer."""
_SLUG_LIMIT = 32
_ADMINISTRATIVE = frozenset({PinFlag.SO_PIN, PinFlag.UNBLOCKING_PIN})
_PROTECTED = frozenset(
    {PinFlag.INTEGRITY_PROTECTED, PinFlag.CONFIDENTIALITY_PROTECTED, PinFlag.MULTI_STEP}
)

Pair = tuple[CertificateObject, PrivateKey | None]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where on the card the probe found what."""

    home: Home
    manner: Manner
    seen: Sighting
    declared: Declared
    odf: Sequence[Reference] = ()
    certificates: Mapping[str, CertificateObject] = field(default_factory=dict)
    keys: Mapping[str, Key] = field(default_factory=dict)
    """Those that sign, by slot."""
    keys_shown: bool = False
    """Whether the probe could read of any key: some cards show them to their holder only."""
    pins: Mapping[str, AuthenticationObject] = field(default_factory=dict)
    """By label on the bus."""
    algorithms: Sequence[AlgorithmInfo] = ()

    def flags(self, label: str) -> frozenset[int]:
        """What the card says of a PIN."""
        return self.pins[label].flags if label in self.pins else frozenset()

    def key(self, slot: str, entry: PrivateKey) -> Key:
        """What a signature with it needs to know."""
        return as_key(slot, entry, self.pins, self.algorithms, self.declared.mechanisms)


@dataclass(frozen=True, slots=True)
class Named:
    """A card's objects under the contract's names."""

    certificates: Mapping[str, CertificateObject]
    keys: Mapping[str, PrivateKey]
    pins: Mapping[str, AuthenticationObject]
    granting: str
    """The label of the PIN that guards the authentication key; "" if there is none."""


def named(found: Contents, labels: Mapping[str, str]) -> Named:
    """Everything under its name; `labels` are a declaration's."""
    by_identifier = {key.identifier: key for key in reversed(found.keys) if key.identifier}
    pairs = [(each, by_identifier.get(each.identifier)) for each in found.certificates]
    slots = _slots(pairs)
    keys = {slot: key for slot, (_, key) in slots.items() if key is not None}
    pins, granting = _labels(found.pins, keys, labels)
    return Named({slot: pair[0] for slot, pair in slots.items()}, keys, pins, granting)


def slug(text: str, otherwise: str) -> str:
    """A card's label as a name on the bus: a-z, 0-9 and hyphens."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_SLUG_LIMIT].strip("-") or otherwise


def unique(name: str, taken: Mapping[str, object], reserved: Sequence[str]) -> str:
    """The name, or with a number behind it: another object has it, or the contract does."""
    tries = (name if number == 1 else f"{name}-{number}" for number in range(1, 1 << 16))
    return next(each for each in tries if each not in taken and each not in reserved)


def _slots(pairs: Sequence[Pair]) -> dict[str, Pair]:
    holders = [pair for pair in pairs if not pair[0].authority]
    shown = any(key for _, key in holders)
    slots: dict[str, Pair] = {}
    for slot, choices in (_by_keys if shown else _by_labels)(holders):
        chosen = next((pair for pair in choices if pair not in slots.values()), None)
        if chosen:
            slots[slot] = chosen
    for pair in pairs:
        if pair not in slots.values():
            slots[unique(slug(pair[0].label, "certificate"), slots, SLOTS)] = pair
    return slots


def _by_keys(holders: Sequence[Pair]) -> Iterator[tuple[str, Iterator[Pair]]]:
    authentication = (
        _with_key(holders, lambda key: key.signs and not _solemn(key)),
        _with_key(holders, lambda key: key.signs and not key.commits),
        _with_key(holders, lambda key: key.signs),
    )
    yield "authentication", chain(*authentication)
    yield "signature", _with_key(holders, lambda key: key.signs and _solemn(key))
    yield "encryption", _with_key(holders, lambda key: key.deciphers and not key.signs)


def _by_labels(holders: Sequence[Pair]) -> Iterator[tuple[str, Iterator[Pair]]]:
    yield "authentication", chain(_saying(holders, "auth"), holders)
    yield "signature", _saying(holders, "sign")
    yield "encryption", chain(_saying(holders, "crypt"), _saying(holders, "cipher"))


def _saying(holders: Sequence[Pair], word: str) -> Iterator[Pair]:
    return (pair for pair in holders if word in slug(pair[0].label, ""))


def _with_key(pairs: Sequence[Pair], fits: Callable[[PrivateKey], bool]) -> Iterator[Pair]:
    return (pair for pair in pairs if pair[1] is not None and fits(pair[1]))


def _solemn(key: PrivateKey) -> bool:
    """Whether its signatures are for content commitment, or want the PIN each time."""
    return key.commits or key.user_consent > 0


def _labels(
    pins: Sequence[AuthenticationObject],
    keys: Mapping[str, PrivateKey],
    declared: Mapping[str, str],
) -> tuple[dict[str, AuthenticationObject], str]:
    """PINs by label; two objects with the same reference in the same place are one counter."""
    places = {(pin.reference, pin.path): pin for pin in reversed(pins)}
    left = [pin for pin in pins if places[pin.reference, pin.path] is pin]
    labels: dict[str, AuthenticationObject] = {}

    def give(label: str, pin: AuthenticationObject | None) -> None:
        if pin in left and label not in labels and pin is not None:
            labels[label] = pin
            left.remove(pin)

    for pin in list(left):
        own = declared.get(pin.label) or declared.get(f"{pin.reference:02X}")
        if own:
            give(own, pin)
    ordinary = [pin for pin in pins if not pin.flags & _ADMINISTRATIVE]
    guard = {slot: _guard(key, ordinary) for slot, key in keys.items()}
    authentication = guard.get("authentication") or next(iter(ordinary), None)
    give("user", authentication)
    give("signature", guard.get("signature") or (None if keys else _signature_pin(left)))
    give("puk", _unblocking(pins, authentication))
    for pin in list(left):
        officer = "so-pin" if PinFlag.SO_PIN in pin.flags else "pin"
        give(unique(slug(pin.label, officer), labels, LABELS), pin)
    granting = next((label for label, pin in labels.items() if pin is authentication), "")
    return labels, granting


def _signature_pin(pins: Sequence[AuthenticationObject]) -> AuthenticationObject | None:
    """Where the card shows no key, its PIN's label has to do."""
    ordinary = (pin for pin in pins if not pin.flags & _ADMINISTRATIVE)
    return next((pin for pin in ordinary if "sign" in slug(pin.label, "")), None)


def _guard(key: PrivateKey, pins: Sequence[AuthenticationObject]) -> AuthenticationObject | None:
    return next((pin for pin in pins if key.auth_id and pin.auth_id == key.auth_id), None)


def _unblocking(
    pins: Sequence[AuthenticationObject], user: AuthenticationObject | None
) -> AuthenticationObject | None:
    unblocking = [pin for pin in pins if PinFlag.UNBLOCKING_PIN in pin.flags]
    linked = (p for p in unblocking if user and user.guarded_by and p.auth_id == user.guarded_by)
    return next(linked, unblocking[0] if len(unblocking) == 1 else None)


def as_pin(
    label: str, entry: AuthenticationObject, *, home: Home, free: bool, grants: bool
) -> Pin | None:
    """What VERIFY needs to know of it; None: its data cannot be formed, or want to be protected."""
    coding = {int(each): each for each in Coding}.get(entry.coding)
    stored = entry.stored_length or entry.max_length or 0
    if coding is None or entry.flags & _PROTECTED or not 0 < stored <= DATA_LIMIT:
        return None
    most = entry.max_length or coding.characters(stored)
    fixed = entry.min_length == most == coding.characters(stored) and entry.pad is not None
    padded = PinFlag.NEEDS_PADDING in entry.flags or fixed
    if padded and entry.pad is None and coding is not Coding.ISO9564_1:
        return None  # by what, the card does not say: the wrong byte would cost a try
    inside = home.path if PinFlag.LOCAL in entry.flags else b""
    administrative = bool(entry.flags & _ADMINISTRATIVE)
    return Pin(
        label=label,
        reference=entry.reference,
        stored_length=stored,
        pad=entry.pad if padded else None,
        asking_is_free=free and not administrative,
        min_length=1 if fixed else min(entry.min_length, most),
        max_length=min(most, coding.characters(stored)),
        coding=coding,
        path=entry.path.value if entry.path else inside,
        grants=grants,
        verifiable=not administrative,
    )


def unknown_form(label: str, entry: AuthenticationObject, *, grants: bool) -> Pin:
    """A PIN that is shown and cannot be used."""
    return Pin(
        label, entry.reference, 0, None, asking_is_free=False, grants=grants, verifiable=False
    )


def as_key(
    slot: str,
    entry: PrivateKey,
    labels: Mapping[str, AuthenticationObject],
    algorithms: Sequence[AlgorithmInfo],
    declared: Mapping[str, int],
) -> Key:
    """What a signature needs to know of it."""
    guards = [label for label, pin in labels.items() if entry.auth_id == pin.auth_id != b""]
    guarded = entry.private or entry.auth_id or entry.user_consent
    return Key(
        slot=slot,
        reference=NO_REFERENCE if entry.reference is None else entry.reference,
        key_type=entry.key_type,
        key_bits=entry.bits,
        pin=next(iter(guards), "user" if guarded else ""),
        pin_always=entry.user_consent > 0,
        path=entry.path.value if entry.path else b"",
        mechanisms=_mechanisms(entry, algorithms) or tuple(declared.items()),
    )


def _mechanisms(
    entry: PrivateKey, algorithms: Sequence[AlgorithmInfo]
) -> tuple[tuple[str, int], ...]:
    """Those that the key refers to; if it refers to none, all that sign and are of its type."""
    own = [each for each in algorithms if each.reference in entry.algorithms]
    usable = own or [each for each in algorithms if each.signs and not entry.algorithms]
    prefix = "rsa" if entry.key_type == "rsa" else "ecdsa"
    found = (
        (
            MECHANISMS.get(each.mechanism, ""),
            NO_REFERENCE if each.algorithm is None else each.algorithm,
        )
        for each in usable
    )
    return tuple((name, reference) for name, reference in found if name.startswith(prefix))
