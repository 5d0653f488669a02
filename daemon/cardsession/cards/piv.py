"""PIV cards: NIST SP 800-73-4 part 1 (data model) and part 2 (card application commands)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace

from cardsession.core import tlv
from cardsession.core.apdu import Command, Response
from cardsession.core.dialogue import Attempt, Dialogue, Reset, Settle, lowest_seen, transmit
from cardsession.core.errors import Failure, Malformed, Problem
from cardsession.core.secret import Secret, wipe
from cardsession.core.tries import (
    Consent,
    Judged,
    NoSuchPin,
    Outcome,
    PinStatus,
    Unknown,
    Verified,
    judge_verify,
    may_spend,
    read_query,
)

from .profile import Pin, Probe

NAME = "piv"
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

# Part 2 clause 3.2.1: VERIFY with an absent data field asks for the number of further allowed
# retries and compares nothing. Part 1 clause 3.1.3 names the references.
APPLICATION_PIN = Pin("user", 0x80, stored_length=8, pad=0xFF, asking_is_free=True)
GLOBAL_PIN = replace(APPLICATION_PIN, reference=0x00)

_POLICY_BYTES = 2
_GLOBAL_EXISTS = 0x20
_GLOBAL_IS_PRIMARY = 0x20


class Piv:
    """The family's dialogues (see `Profile`)."""

    name = NAME

    def probe(self) -> Dialogue[Probe | None]:
        """SELECT, discovery, CHUID, counter, authentication certificate: no more before ready."""
        if not (yield from _select()):
            return None
        pin = yield from _primary_pin()
        identity = yield from _identity()
        status = yield from _count(pin)
        if isinstance(status, NoSuchPin):
            pins, tries = {}, {}
        else:
            pins, tries = {pin.label: pin}, {pin.label: status}
        found = yield from _certificate("authentication")
        certificates = {"authentication": found} if found else {}
        return Probe(NAME, identity, pins, tries, certificates)

    def certificates(self, probe: Probe) -> Dialogue[Mapping[str, bytes]]:
        """The slots that the probe did not read."""
        yield from _same_card(probe)
        found: dict[str, bytes] = {}
        for slot in CERTIFICATES:
            if slot not in probe.certificates:
                certificate = yield from _certificate(slot)
                if certificate:
                    found[slot] = certificate
        return found

    def question(self, probe: Probe) -> Dialogue[Mapping[str, PinStatus]]:
        """The counters now; a card that somebody left verified is de-authenticated first."""
        yield from _same_card(probe)
        tries: dict[str, PinStatus] = {}
        for label, pin in probe.pins.items():
            tries[label] = yield from _sober_count(probe, pin)
        return tries

    def verify(self, probe: Probe, pin: Pin, secret: Secret, consent: Consent) -> Dialogue[Judged]:
        """Select, identify, ask, guard, and then one VERIFY (part 2 clause 3.2.1), never two."""
        if len(secret) > pin.stored_length:
            return Judged(Outcome.BAD_FORMAT, probe.tries.get(pin.label, Unknown()), sent=False)
        yield from _same_card(probe)
        before = yield from _sober_count(probe, pin)
        if isinstance(before, NoSuchPin):
            raise Failure(Problem.NO_SUCH_PIN, f"the card has no PIN {pin.label}")
        lowest = yield from lowest_seen(probe.identity, pin.reference)
        refusal = may_spend(before, consent, lowest)
        if refusal:
            return refusal
        yield Attempt(probe.identity, pin.reference)
        judged = yield from _submit(pin, secret, before)
        if isinstance(judged.status, Unknown):
            judged = replace(judged, status=(yield from _sober_count(probe, pin)))
        yield Settle(probe.identity, pin.reference, judged.status)
        return judged

    def release(self, probe: Probe) -> Dialogue[Mapping[str, PinStatus] | None]:
        """De-authenticate every PIN (part 2 clause 3.2.1, P1 = FF), and count once more."""
        if not (yield from _select()):
            return None
        tries: dict[str, PinStatus] = {}
        for label, pin in probe.pins.items():
            reply = yield from _deauthenticate(pin)
            tries[label] = yield from _count(pin)
            if not reply.sw.ok or isinstance(tries[label], Verified):
                return None
        return tries


def _select() -> Dialogue[bool]:
    reply = yield from transmit(Command(0x00, 0xA4, 0x04, 0x00, AID, ne=256))
    return reply.sw.ok


def _get_data(tag: bytes) -> Dialogue[bytes | None]:
    """GET DATA (part 2 clause 3.1.2); None where the card has no such object for us."""
    data = tlv.encode(0x5C, tag)
    reply: Response = yield from transmit(Command(0x00, 0xCB, 0x3F, 0xFF, data, ne=256))
    return reply.data if reply.sw.ok else None


def _object(tag: bytes) -> Dialogue[bytes | None]:
    """An object's content without its 53 envelope; None if absent or malformed."""
    raw = yield from _get_data(tag)
    try:
        return tlv.find(raw, 0x53) if raw else None
    except Malformed:
        return None


def _primary_pin() -> Dialogue[Pin]:
    """Part 1 clause 3.3.2: tag 5F2F says which PIN satisfies the access rules first."""
    raw = yield from _get_data(DISCOVERY)
    try:
        policy = tlv.find(tlv.need(raw, 0x7E), 0x5F2F) if raw else None
    except Malformed:
        policy = None
    if not policy or len(policy) < _POLICY_BYTES:
        return APPLICATION_PIN
    primary_is_global = policy[0] & _GLOBAL_EXISTS and policy[1] == _GLOBAL_IS_PRIMARY
    return GLOBAL_PIN if primary_is_global else APPLICATION_PIN


def _identity() -> Dialogue[str]:
    """The CHUID's GUID (tag 34), else its FASC-N (tag 30): part 1 clause 3.1.2."""
    content = yield from _object(CHUID)
    try:
        fields = dict(tlv.items(content or b""))
    except Malformed:
        return ""
    for tag in (0x34, 0x30):
        value = fields.get(tag, b"")
        if any(value):
            return value[:32].hex().upper()
    return ""


def _same_card(probe: Probe) -> Dialogue[None]:
    """Select the application again and refuse any card but the one that was probed."""
    if not (yield from _select()):
        raise Failure(Problem.CARD_RESET, "the card no longer offers its application")
    if (yield from _identity()) != probe.identity:
        raise Failure(Problem.CARD_REMOVED, "another card lies in the reader")


def _count(pin: Pin) -> Dialogue[PinStatus]:
    if not pin.asking_is_free:
        return Unknown()
    reply = yield from transmit(Command(0x00, 0x20, 0x00, pin.reference))
    return read_query(reply.sw)


def _deauthenticate(pin: Pin) -> Dialogue[Response]:
    return (yield from transmit(Command(0x00, 0x20, 0xFF, pin.reference)))


def _sober_count(probe: Probe, pin: Pin) -> Dialogue[PinStatus]:
    """The count, where 9000 would blind us: end that authority first, then ask again."""
    status = yield from _count(pin)
    if not isinstance(status, Verified):
        return status
    reply = yield from _deauthenticate(pin)
    if not reply.sw.ok:
        yield Reset()
        yield from _same_card(probe)
    status = yield from _count(pin)
    return Unknown() if isinstance(status, Verified) else status


def _submit(pin: Pin, secret: Secret, before: PinStatus) -> Dialogue[Judged]:
    """The one VERIFY. An answer that is none leaves it uncertain whether a try is gone."""
    data = secret.padded(pin.stored_length, pin.pad)
    try:
        command = Command(0x00, 0x20, 0x00, pin.reference, data, effect=True)
        reply = yield from transmit(command)
        return judge_verify(reply.sw, before, format_uncounted=True)
    except Malformed:
        return Judged(Outcome.UNCERTAIN, Unknown())
    finally:
        wipe(data)
        secret.wipe()


def _certificate(slot: str) -> Dialogue[bytes | None]:
    """Part 1 appendix A: 70 certificate, 71 CertInfo (bit 1: gzip), FE."""
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
