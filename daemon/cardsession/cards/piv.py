"""PIV cards: NIST SP 800-73-4 part 1 (data model) and part 2 (card application commands)."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

from cardsession.core import tlv
from cardsession.core.apdu import BYTES_WAITING, Command, Response
from cardsession.core.dialogue import Attempt, Dialogue, Noted, Reset, Settle, lowest_seen, transmit
from cardsession.core.errors import Failure, Malformed, Problem
from cardsession.core.secret import Secret, wipe
from cardsession.core.tries import (
    Blocked,
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
        pin, others = yield from _pins()
        guid, fasc_n = yield from _chuid()
        status = yield from _count(pin)
        known = not isinstance(status, NoSuchPin)
        found = yield from _certificate("authentication")
        return Probe(
            profile=NAME,
            identity=guid or _fingerprint(found),
            serial=guid or fasc_n,
            pins={pin.label: pin} if known else {},
            tries={pin.label: status} if known else {},
            certificates={"authentication": found} if found else {},
            others=others,
        )

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
        if not (yield from _deauthenticate(probe.others)):
            yield Reset()
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
            judged = _read_back(judged, (yield from _sober_count(probe, pin)))
        yield Settle(probe.identity, pin.reference, judged.status)
        return judged

    def release(self, probe: Probe) -> Dialogue[Mapping[str, PinStatus] | None]:
        """De-authenticate every PIN (part 2 clause 3.2.1, P1 = FF), and count once more."""
        yield from _same_card(probe)
        references = (*(pin.reference for pin in probe.pins.values()), *probe.others)
        clean = yield from _deauthenticate(references)
        tries: dict[str, PinStatus] = {}
        for label, pin in probe.pins.items():
            tries[label] = yield from _count(pin)
            clean = clean and not isinstance(tries[label], Verified)
        return tries if clean else None


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


def _pins() -> Dialogue[tuple[Pin, tuple[int, ...]]]:
    """The primary PIN, and the references of others (part 1 clause 3.3.2: tag 5F2F says which
    PINs there are, and which one satisfies the access rules first)."""
    raw = yield from _get_data(DISCOVERY)
    try:
        policy = tlv.find(tlv.need(raw, 0x7E), 0x5F2F) if raw else None
    except Malformed:
        policy = None
    if not policy or len(policy) < _POLICY_BYTES or not policy[0] & _GLOBAL_EXISTS:
        return APPLICATION_PIN, ()
    if policy[1] == _GLOBAL_IS_PRIMARY:
        return GLOBAL_PIN, (APPLICATION_PIN.reference,)
    return APPLICATION_PIN, (GLOBAL_PIN.reference,)


def _chuid() -> Dialogue[tuple[str, str]]:
    """The CHUID's GUID (tag 34) and FASC-N (tag 30), "" for what is not there or says nothing:
    part 1 clause 3.1.2. Only the GUID tells cards apart: issuers outside the federal government
    give all of theirs the same FASC-N.

    Both stand before the issuer's signature, which may fill kilobytes: its rest is not fetched.
    """
    data = tlv.encode(0x5C, CHUID)
    command = Command(0x00, 0xCB, 0x3F, 0xFF, data, ne=256, enough=1)
    reply = yield from transmit(command)
    cut = reply.sw.sw1 == BYTES_WAITING
    if not reply.sw.ok and not cut:
        return "", ""
    try:
        content = dict(tlv.items(reply.data, cut=cut)).get(0x53, b"")
        fields = dict(tlv.items(content, cut=cut))
    except Malformed:
        return "", ""
    guid, fasc_n = (fields.get(tag, b"")[:32] for tag in (0x34, 0x30))
    return _digits(guid), _digits(fasc_n)


def _digits(value: bytes) -> str:
    """Hexadecimal, or "" for zeros: they stand for "none"."""
    return value.hex().upper() if any(value) else ""


def _fingerprint(certificate: bytes | None) -> str:
    """What tells a card without a CHUID from another: its authentication certificate."""
    return f"sha256:{hashlib.sha256(certificate).hexdigest()}" if certificate else ""


def _same_card(probe: Probe) -> Dialogue[None]:
    """Select the application again and refuse any card but the one that was probed."""
    if not (yield from _select()):
        raise Failure(Problem.CARD_RESET, "the card no longer offers its application")
    identity, _ = yield from _chuid()
    if not identity and probe.identity:
        identity = _fingerprint((yield from _certificate("authentication")))
    if identity != probe.identity:
        raise Failure(Problem.CARD_REMOVED, "another card lies in the reader")


def _count(pin: Pin) -> Dialogue[PinStatus]:
    if not pin.asking_is_free:
        return Unknown()
    reply = yield from transmit(Command(0x00, 0x20, 0x00, pin.reference))
    return read_query(reply.sw)


def _deauthenticate(references: Iterable[int]) -> Dialogue[bool]:
    """End these authorities (part 2 clause 3.2.1, P1 = FF); False if only a reset can."""
    clean = True
    for reference in references:
        reply = yield from transmit(Command(0x00, 0x20, 0xFF, reference))
        clean = clean and reply.sw.ok
    return clean


def _sober_count(probe: Probe, pin: Pin) -> Dialogue[PinStatus]:
    """The count, where 9000 would blind us: end that authority first, then ask again.

    A card that says it did, and did not, is reset; one that is verified even then is none that
    we can speak for.
    """
    status = yield from _count(pin)
    if isinstance(status, Verified):
        clean = yield from _deauthenticate((pin.reference,))
        status = yield from _count(pin)
        if not clean or isinstance(status, Verified):
            yield Reset()
            yield from _same_card(probe)
            status = yield from _count(pin)
    if isinstance(status, Verified):
        raise Failure(Problem.IN_USE_ELSEWHERE, "a verification by another program does not end")
    yield Noted(probe.identity, pin.reference, status)
    return status


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


def _read_back(judged: Judged, status: PinStatus) -> Judged:
    """The count that the answer to VERIFY did not tell, asked for afterwards."""
    if isinstance(status, Blocked) and judged.outcome is Outcome.INCORRECT:
        return replace(judged, outcome=Outcome.NOW_BLOCKED, status=status, read_back=True)
    return replace(judged, status=status, read_back=True)


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
