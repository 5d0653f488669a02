"""Certificates: whose they are, how long they last, and what they are worth.

cryptography is imported at first use: it costs 50 ms and 9 MiB, and a counter without a card
needs neither. `certificate`, `chain` and `revocation` import it at once, so they are imported as
late. Call from a worker, not from the loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .facts import Certificate, Revocation, Standing, Trust
from .signing import Algorithm
from .text import clean
from .trust_rules import Store, TrustRules

if TYPE_CHECKING:
    from cryptography import x509

    from . import revocation
    from .chain import Path

HOLDER = "authentication"
"""The slot of the certificate that is judged."""
_DETAIL_CHARS = 200


def read(slot: str, der: bytes) -> Certificate:
    """The facts of one certificate; what cannot be read stays unknown, and the DER is kept."""
    from cryptography import x509  # noqa: PLC0415 - late on purpose, see above
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    from .certificate import key_of  # noqa: PLC0415

    try:
        found = x509.load_der_x509_certificate(der)
        key_type, key_bits = key_of(found)
        return Certificate(
            slot=slot,
            der=der,
            subject=clean(found.subject.rfc4514_string()),
            common_name=_first(found.subject, NameOID.COMMON_NAME),
            not_before=int(found.not_valid_before_utc.timestamp()),
            not_after=int(found.not_valid_after_utc.timestamp()),
            organisation=_first(found.subject, NameOID.ORGANIZATION_NAME),
            key_type=key_type,
            key_bits=key_bits,
        )
    except Exception:  # whatever a card may hold in place of a certificate
        return Certificate(slot=slot, der=der)


def read_all(found: Mapping[str, bytes]) -> dict[str, Certificate]:
    """The same for every slot."""
    return {slot: read(slot, der) for slot, der in found.items()}


def signature_holds(der: bytes, algorithm: Algorithm, digest: bytes, signature: bytes) -> bool:
    """Whether the key of that certificate made the signature of that digest.

    RSA: PKCS #1 v1.5 (RFC 8017 clause 8.2.2). EC: DER (RFC 3279 clause 2.2.3). Anything wrong,
    the certificate or the kind of its key too, is False.
    """
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils  # noqa: PLC0415

    known = {32: hashes.SHA256(), 48: hashes.SHA384(), 64: hashes.SHA512()}
    try:
        hashed = utils.Prehashed(known[algorithm.digest_size])
        key = x509.load_der_x509_certificate(der).public_key()
        if algorithm.key_type == "rsa" and isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, digest, padding.PKCS1v15(), hashed)
            return True
        if algorithm.key_type == "ec" and isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, digest, ec.ECDSA(hashed))
            return True
    except Exception:  # a card's doing, whatever it is: it proves nothing
        return False
    return False


def judge(
    certificates: Mapping[str, Certificate], store: Store, rules: TrustRules, now: int
) -> Standing:
    """What the holder's certificate is worth at `now` (Unix seconds).

    In this order: is there one, can it be read, is it in time, are there anchors, does a chain
    reach one, was any of it revoked. A revocation that the site's own authorities and lists prove
    wins over a chain that does not hold: whose card was revoked must not read "unknown issuer".
    """
    holder = certificates.get(HOLDER)
    if holder is None:
        return Standing(Trust.NO_CERTIFICATE, "no authentication certificate on the card")
    if not holder.not_after:
        return Standing(Trust.NOT_CHECKED, "the certificate cannot be read")
    if now > holder.not_after:
        return Standing(Trust.EXPIRED, f"the certificate expired on {_day(holder.not_after)}")
    if now < holder.not_before:
        return Standing(
            Trust.NOT_YET_VALID, f"the certificate is not valid before {_day(holder.not_before)}"
        )
    if not store.anchors:
        return Standing(Trust.NOT_CHECKED, "no trust anchors are configured")
    return _chained(holder, certificates, store, rules, datetime.fromtimestamp(now, UTC))


def _chained(
    holder: Certificate,
    certificates: Mapping[str, Certificate],
    store: Store,
    rules: TrustRules,
    when: datetime,
) -> Standing:
    """The part for which certificates are opened again."""
    from . import chain, revocation  # noqa: PLC0415 - they import cryptography
    from .certificate import opened  # noqa: PLC0415

    leaf = opened(holder.der)
    if leaf is None:
        return Standing(Trust.NOT_CHECKED, "the certificate cannot be read")
    offered = [
        found
        for slot, each in certificates.items()
        if slot != HOLDER and (found := opened(each.der)) is not None
    ]
    lists = revocation.Lists(store.lists, rules, when)
    try:
        path = chain.build(leaf, offered, store, rules, when)
    except chain.Unproved as reason:
        said = lists.of_unproved(leaf, (*store.anchors, *store.intermediates))
        if said.revocation is Revocation.REVOKED:
            return _standing(Trust.REVOKED, Revocation.REVOKED, said.detail)
        return _standing(Trust.UNTRUSTED, Revocation.NOT_CHECKED, str(reason))
    return _proved(path, lists.of_chain(path.certificates))


def _proved(path: Path, said: revocation.Finding) -> Standing:
    """A chain that holds, and what the lists say of it."""
    if said.revocation is Revocation.REVOKED:
        return _standing(Trust.REVOKED, Revocation.REVOKED, said.detail)
    admitted = "admitted: " + ", ".join(path.admitted) if path.admitted else ""
    return _standing(Trust.TRUSTED, said.revocation, admitted, said.detail)


def _standing(trust: Trust, revocation: Revocation, *details: str) -> Standing:
    """With one line of detail. The parts are ours; what of them came from outside is clean."""
    return Standing(trust, "; ".join(filter(None, details))[:_DETAIL_CHARS], revocation)


def _first(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    """The first attribute of that kind, cleaned; "" if there is none."""
    found = name.get_attributes_for_oid(oid)
    return clean(found[0].value) if found else ""


def _day(seconds: int) -> str:
    """The date in UTC."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
