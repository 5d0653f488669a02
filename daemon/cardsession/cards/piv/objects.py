"""What lies on a PIV card: its application, its objects, and who it is (SP 800-73-4 part 1)."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass

from cardsession.cards.profile import Probe
from cardsession.core import tlv
from cardsession.core.apdu import BYTES_WAITING, Command, Response
from cardsession.core.dialogue import Dialogue, transmit
from cardsession.core.errors import Failure, Malformed, Problem

AID = bytes.fromhex("A000000308000010000100")[:9]
"""Part 1 clause 2.2: selected without its version."""

CHUID = bytes.fromhex("5FC102")
DISCOVERY = bytes.fromhex("7E")
CERTIFICATES = {
    "authentication": bytes.fromhex("5FC105"),  # key 9A
    "signature": bytes.fromhex("5FC10A"),  # key 9C
    "encryption": bytes.fromhex("5FC10B"),  # key 9D
    "card-authentication": bytes.fromhex("5FC101"),  # key 9E
}
"""Part 1 table 3: the BER-TLV tag of each slot's certificate."""

INFLATED_LIMIT = 16 * 1024
"""No X.509 certificate on a card is larger; inflating stops here."""

_POLICY_BYTES = 2
_EXECUTION_ERRORS = frozenset({0x64, 0x65, 0x66, 0x6F})
"""ISO/IEC 7816-4 clause 5.6: the card failed; it says nothing of what was asked for."""
_NOT_ALLOWED = 0x6982
"""Security status not satisfied."""
_FINGERPRINT = "sha256:"


def select() -> Dialogue[bool]:
    """Whether the card has the application, which is selected now."""
    reply = yield from transmit(Command(0x00, 0xA4, 0x04, 0x00, AID, ne=256))
    return reply.sw.ok


@dataclass(frozen=True, slots=True)
class Chuid:
    """A Card Holder Unique Identifier's GUID and FASC-N; "" for what is not there or is zeros."""

    guid: str = ""
    fasc_n: str = ""
    waiting: bool = False
    """Whether the card still holds a part of its answer."""


def same_card(probe: Probe, *, keep: bool = False) -> Dialogue[None]:
    """Be in the application, and refuse any card but the one that was probed.

    `keep`: it is first taken to be selected still. Selecting it once more should leave its
    authorities alone (part 2 clause 3.1.1); but as an applet on a Java Card it forgets them.
    """
    if keep and probe.identity and (yield from _identity(probe, whole=True)) == probe.identity:
        return
    if not (yield from select()):
        raise Failure(Problem.CARD_RESET, "the card no longer offers its application")
    if (yield from _identity(probe)) != probe.identity:
        raise Failure(Problem.CARD_REMOVED, "another card lies in the reader")


def _identity(probe: Probe, *, whole: bool = False) -> Dialogue[str]:
    """Who answers; no part of the answer is left waiting on the card.

    It should be given up by any other command; but OpenFIPS201 1.10 refuses GENERAL AUTHENTICATE
    (6985) as long as it waits. SELECT is the cheapest command that makes it forget.
    """
    found = yield from chuid(whole=whole)
    if found.waiting:
        yield from select()
    if found.guid or (probe.identity and not probe.identity.startswith(_FINGERPRINT)):
        return found.guid
    return fingerprint((yield from certificate("authentication")))


def pin_policy() -> Dialogue[tuple[int, int]]:
    """The discovery object's two bytes (part 1 clause 3.3.2, tag 5F2F): which PINs there are,
    and which one satisfies the access rules first. Zeros: it says nothing.

    A card that failed (6F00, say) is asked once more: taken for "no such object" that would let a
    passcode go to the wrong PIN. It stands if it comes twice, for old applets mean just that.
    """
    reply = yield from _asked(DISCOVERY)
    if reply.sw.sw1 in _EXECUTION_ERRORS:
        reply = yield from _asked(DISCOVERY)
    raw = reply.data if reply.sw.ok else None
    try:
        policy = tlv.find(tlv.need(raw, 0x7E), 0x5F2F) if raw else None
    except Malformed:
        policy = None
    if not policy or len(policy) < _POLICY_BYTES:
        return 0, 0
    return policy[0], policy[1]


def chuid(*, whole: bool = False) -> Dialogue[Chuid]:
    """The CHUID's GUID (tag 34) and FASC-N (tag 30): part 1 clause 3.1.2. Only the GUID tells
    cards apart: issuers outside the federal government give all of theirs the same FASC-N.

    Both stand before the issuer's signature, which may fill kilobytes: its rest is not fetched
    unless the `whole` of it is wanted.
    """
    data = tlv.encode(0x5C, CHUID)
    command = Command(0x00, 0xCB, 0x3F, 0xFF, data, ne=256, enough=0 if whole else 1)
    reply = yield from transmit(command)
    cut = reply.sw.sw1 == BYTES_WAITING
    if not reply.sw.ok and not cut:
        return Chuid()
    try:
        content = dict(tlv.items(reply.data, cut=cut)).get(0x53, b"")
        fields = dict(tlv.items(content, cut=cut))
    except Malformed:
        return Chuid(waiting=cut)
    guid, fasc_n = (fields.get(tag, b"")[:32] for tag in (0x34, 0x30))
    return Chuid(_digits(guid), _digits(fasc_n), waiting=cut)


def fingerprint(certificate: bytes | None) -> str:
    """What tells a card without a CHUID from another: its authentication certificate."""
    return f"{_FINGERPRINT}{hashlib.sha256(certificate).hexdigest()}" if certificate else ""


def certificate(slot: str) -> Dialogue[bytes | None]:
    """Part 1 appendix A: 70 certificate, 71 CertInfo (bit 1: gzip), FE. None if absent or not to
    be read."""
    content = yield from _object(CERTIFICATES[slot])
    if not content:
        return None
    try:
        fields = dict(tlv.items(content))
        packed = fields.get(0x71, b"\x00")[:1] == b"\x01"
        found = fields.get(0x70, b"")
        return (inflate(found) if packed else found) or None
    except Malformed:
        return None


def withheld(slot: str) -> Dialogue[bool]:
    """Whether the card says that its certificate is not to be read here (6982; part 1 table 2 has
    what each interface shows)."""
    data = tlv.encode(0x5C, CERTIFICATES[slot])
    reply = yield from transmit(Command(0x00, 0xCB, 0x3F, 0xFF, data, ne=256, enough=1))
    return reply.sw == _NOT_ALLOWED


def inflate(packed: bytes) -> bytes:
    """A gzip member of at most 16 KiB; what is larger was made to harm."""
    engine = zlib.decompressobj(wbits=31)
    try:
        plain = engine.decompress(packed, INFLATED_LIMIT + 1)
    except zlib.error as error:
        raise Malformed("a compressed certificate does not inflate") from error
    if len(plain) > INFLATED_LIMIT or not engine.eof:
        raise Malformed(f"a compressed certificate inflates past {INFLATED_LIMIT} bytes")
    return plain


def _get_data(tag: bytes) -> Dialogue[bytes | None]:
    """GET DATA (part 2 clause 3.1.2); None where the card has no such object for us."""
    reply = yield from _asked(tag)
    return reply.data if reply.sw.ok else None


def _asked(tag: bytes) -> Dialogue[Response]:
    return (yield from transmit(Command(0x00, 0xCB, 0x3F, 0xFF, tlv.encode(0x5C, tag), ne=256)))


def _object(tag: bytes) -> Dialogue[bytes | None]:
    """An object's content without its 53 envelope; None if absent or malformed."""
    raw = yield from _get_data(tag)
    try:
        return tlv.find(raw, 0x53) if raw else None
    except Malformed:
        return None


def _digits(value: bytes) -> str:
    """Hexadecimal, or "" for zeros: they stand for "none"."""
    return value.hex().upper() if any(value) else ""
