"""Being in the application of the card that was meant, and asking for its counters."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from cardsession.cards.profile import Key, Pin, Probe
from cardsession.core.apdu import Command
from cardsession.core.dialogue import Dialogue, Noted, Reset, transmit
from cardsession.core.errors import Failure, Problem
from cardsession.core.tries import NotSet, PinStatus, Unknown, Verified, read_query

from .directory import certificate, objects, token_info
from .files import Files
from .layout import Layout
from .objects import Kind, PinFlag, TokenInfo

NAME = "pkcs15"


def layout_of(probe: Probe) -> Layout:
    """Where on the card the probe found what."""
    if not isinstance(probe.layout, Layout):
        raise Failure(Problem.INTERNAL, "a probe of another family")
    return probe.layout


def serial_of(token: TokenInfo) -> str:
    """Hexadecimal, or "" for zeros: they stand for "none"."""
    return token.serial.hex().upper() if any(token.serial) else ""


def identity_of(token: TokenInfo, der: bytes | None) -> str:
    """Serial numbers are a manufacturer's own: both together tell cards apart. Without one, the
    authentication certificate does."""
    if serial_of(token):
        return f"{NAME}:{serial_of(token)}:{token.manufacturer}".rstrip(":")
    return f"sha256:{hashlib.sha256(der).hexdigest()}" if der else ""


def read_slot(files: Files, layout: Layout, slot: str) -> Dialogue[bytes | None]:
    """The certificate of a slot."""
    entry = layout.certificates.get(slot)
    return (yield from certificate(files, entry)) if entry else None


def same_card(probe: Probe) -> Dialogue[Files]:
    """Be in the application, and refuse any card but the one that was probed.

    An applet that has file paths, too, is first taken to be selected still: selecting it by its
    name may end the session's own authority. Who answers is asked in any case.
    """
    layout = layout_of(probe)
    identity = ""
    for by_name in (False, True) if layout.home.path and layout.home.aid else (False,):
        files = Files(layout.manner, layout.home)
        if by_name and (yield from files.name(layout.home.aid)) is None:
            continue
        identity = (yield from _who(files, layout)) or identity
        if identity == probe.identity:
            if not (yield from files.go(b"")):
                break
            return files
    if identity and identity != probe.identity:
        raise Failure(Problem.CARD_REMOVED, "another card lies in the reader")
    raise Failure(Problem.CARD_RESET, "the card no longer offers its application")


def at_pin(probe: Probe, pin: Pin) -> Dialogue[Files]:
    """The same, and where the PIN is to be used: VERIFY looks in the current directory first."""
    files = yield from same_card(probe)
    if pin.path and not (yield from files.go(pin.path)):
        raise Failure(Problem.NO_SUCH_PIN, f"the card does not find the place of {pin.label}")
    return files


def key_of(files: Files, layout: Layout, slot: str) -> Dialogue[Key]:
    """The key of a slot's certificate, if it signs; one that the card shows to its holder only is
    looked for now, for a session's authority opens the directory."""
    from . import asn1  # noqa: PLC0415 - it imports asn1crypto

    if slot not in layout.keys and not layout.keys_shown and slot in layout.certificates:
        identifier = layout.certificates[slot].identifier
        for entry in (yield from objects(files, layout.odf, Kind.PRIVATE_KEYS, asn1.private_keys)):
            if entry.identifier == identifier and entry.signs:
                return layout.key(slot, entry)
    if slot not in layout.keys:
        raise Failure(Problem.NO_SUCH_SLOT, "the card has no key in this slot")
    return layout.keys[slot]


def counts(files: Files, layout: Layout, pins: Mapping[str, Pin]) -> Dialogue[dict[str, PinStatus]]:
    """The counters of all PINs as they are, whoever is verified."""
    tries: dict[str, PinStatus] = {}
    for label, pin in pins.items():
        if pin.asking_is_free:
            yield from files.go(pin.path)
        tries[label] = yield from count(layout, pin)
    return tries


def count(layout: Layout, pin: Pin) -> Dialogue[PinStatus]:
    """What the card says of a PIN: in its directory, that it is not set (a PUK's entry is often
    not so exact); else only if asked."""
    if pin.verifiable and PinFlag.INITIALIZED not in layout.flags(pin.label):
        return NotSet()
    if not pin.asking_is_free:
        return Unknown()
    reply = yield from transmit(Command(0x00, 0x20, 0x00, pin.reference))
    return read_query(reply.sw)


def sober_count(
    probe: Probe, pin: Pin, again: Callable[[], Dialogue[Files]]
) -> Dialogue[PinStatus]:
    """The count, where 9000 would blind us: a reset ends that authority, then we are there
    `again`, and ask again."""
    layout = layout_of(probe)
    status = yield from count(layout, pin)
    if isinstance(status, Verified):
        yield Reset()
        yield from again()
        status = yield from count(layout, pin)
    if isinstance(status, Verified):
        raise Failure(Problem.IN_USE_ELSEWHERE, "a verification by another program does not end")
    if pin.asking_is_free:
        yield Noted(probe.identity, pin.counter, status)
    return status


def _who(files: Files, layout: Layout) -> Dialogue[str]:
    token = yield from token_info(files, layout.home)
    if serial_of(token):
        return identity_of(token, None)
    return identity_of(token, (yield from read_slot(files, layout, "authentication")))
