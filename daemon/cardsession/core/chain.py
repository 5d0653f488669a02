"""The chain from a card's certificate to an anchor of the site, or why there is none.

Imports cryptography at once: import this late, in a worker.

The strict way is cryptography's own verifier (RFC 5280 clause 6.1 and the web's profile of it),
made to fit cards:
- the holder's certificate may have any extension or none: no SAN, an EKU for card log-on only;
- an authority needs keyUsage with keyCertSign and basicConstraints with cA, but neither need be
  critical: in authorities of the age of the NHS's they are not. Key identifiers may lack;
- an authority's EKU, if it has one, must allow what the site demands of a holder, else log-on with
  a card or a client's certificate: the verifier by itself knows a client's only;
- a critical extension that the verifier does not apply is refused, whoever has it.

SHA-1 signatures, and authorities' RSA keys of less than 2048 bits, it refuses always. Where the
site admits them there is a second, minimal way, for chains that do have such a link and for no
others. It goes by the site's own authorities, not the card's, and refuses what it does not apply:
name constraints, and any other critical extension.

No holder's certificate is an anchor: an authority issues cards, and is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from cryptography import x509
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from .certificate import (
    UNREADABLE,
    extension,
    is_authority,
    is_self_signed,
    is_sha1,
    issued,
    key_of,
    name_of,
)
from .text import clean
from .trust_rules import Legacy, Store, TrustRules

DEPTH = 5
"""The most authorities between a holder and an anchor."""
_LEGACY_RSA_BITS = 1024
_STRICT_RSA_BITS = 2048
"""What the strict way wants of an authority, whatever the site says."""
_MINIMUM_EC_BITS = 224
"""As strong as RSA with 2048 (NIST SP 800-57 part 1 table 2)."""
_CARD_PURPOSES = {
    ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string,
    ExtendedKeyUsageOID.SMARTCARD_LOGON.dotted_string,
}
_APPLIED = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
}
"""What may be critical on the legacy way."""

Chain = tuple[x509.Certificate, ...]
"""The holder's certificate first."""


class Unproved(Exception):
    """No chain holds; the text is for people, and clean."""


@dataclass(frozen=True, slots=True)
class Path:
    """A chain that holds; its last certificate is an anchor."""

    certificates: Chain
    admitted: tuple[Legacy, ...] = ()
    """What of the past it needs, all of it admitted by the site."""


def build(
    leaf: x509.Certificate,
    offered: Sequence[x509.Certificate],
    store: Store,
    rules: TrustRules,
    when: datetime,
) -> Path:
    """A chain for the holder's certificate at `when`; `offered` is what else the card holds.

    Unproved: there is none, and why.
    """
    _fits(leaf, rules)
    try:
        found = _strict(leaf, [*offered, *store.intermediates], store.anchors, rules, when)
    except (verification.VerificationError, *UNREADABLE) as error:
        for candidate in _climb((leaf,), store, rules, when):
            if _is_legacy(candidate):
                return Path(candidate, _admitted(candidate, rules))
        known = (*store.anchors, *store.intermediates, *offered)
        raise Unproved(_why(leaf, known, store.anchors, rules, when) or _said(error)) from None
    for each in found[1:]:
        if fault := _weakness(each, rules, f"{name_of(each.subject)}'s"):
            raise Unproved(fault)
    return Path(found, _admitted(found, rules))


def _fits(leaf: x509.Certificate, rules: TrustRules) -> None:
    """Unproved, unless it is a holder's, for what the site demands, with a key that is enough."""
    if is_authority(leaf):
        raise Unproved("the certificate is an authority's, not a holder's")
    usage = extension(leaf, x509.ExtendedKeyUsage)
    there = {oid.dotted_string for oid in usage} if usage is not None else set()
    if missing := [oid for oid in rules.required_eku if oid not in there]:
        raise Unproved(f"the certificate lacks the extended key usage {clean(missing[0])}")
    if fault := _weakness(leaf, rules, "the certificate's"):
        raise Unproved(fault)


def _weakness(certificate: x509.Certificate, rules: TrustRules, whose: str) -> str:
    """Why its key is not enough, for anybody or for this site; "" if it is."""
    kind, bits = key_of(certificate)
    if not kind:
        return f"{whose} key is neither RSA nor on an elliptic curve that is known here"
    wanted = _rsa_bits(rules) if kind == "rsa" else _MINIMUM_EC_BITS
    if bits >= wanted:
        return ""
    return f"{whose} {kind.upper()} key has {bits} bits, {wanted} are wanted"


def _rsa_bits(rules: TrustRules) -> int:
    """The least that an RSA key must have at this site."""
    if Legacy.RSA_1024 in rules.admitted:
        return min(_LEGACY_RSA_BITS, rules.minimum_rsa_bits)
    return rules.minimum_rsa_bits


def _admitted(chain: Chain, rules: TrustRules) -> tuple[Legacy, ...]:
    """What of the past a chain that holds needs."""
    used = []
    if any(map(is_sha1, chain[:-1])):  # nobody asks who signed an anchor
        used.append(Legacy.SHA1)
    if any(kind == "rsa" and bits < rules.minimum_rsa_bits for kind, bits in map(key_of, chain)):
        used.append(Legacy.RSA_1024)
    return tuple(used)


def _strict(
    leaf: x509.Certificate,
    between: list[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    rules: TrustRules,
    when: datetime,
) -> Chain:
    """By cryptography's verifier. VerificationError: no chain holds."""
    agnostic = verification.Criticality.AGNOSTIC
    authorities = (
        verification.ExtensionPolicy.webpki_defaults_ca()
        .require_present(x509.BasicConstraints, agnostic, _must_be_authority)
        .may_be_present(x509.ExtendedKeyUsage, agnostic, partial(_must_serve, rules))
    )
    policy = (
        verification.PolicyBuilder()
        # one that is no authority would make a holder's certificate its own anchor
        .store(verification.Store(list(filter(is_authority, anchors))))
        .time(when)
        .max_chain_depth(DEPTH)
        .extension_policies(
            ca_policy=authorities, ee_policy=verification.ExtensionPolicy.permit_all()
        )
    )
    return tuple(policy.build_client_verifier().verify(leaf, between).chain)


def _must_be_authority(
    _policy: verification.Policy, _issuer: x509.Certificate, found: x509.BasicConstraints
) -> None:
    # as the default does that this one replaces for the sake of `agnostic`
    if not found.ca:
        raise ValueError("an issuer is no authority")


def _must_serve(
    rules: TrustRules,
    _policy: verification.Policy,
    _issuer: x509.Certificate,
    found: x509.ExtendedKeyUsage | None,
) -> None:
    if not _serves(found, rules):
        raise ValueError("an authority is not for the certificates of cards")


def _serves(usage: x509.ExtendedKeyUsage | None, rules: TrustRules) -> bool:
    """Whether an authority's EKU, where it has one, leaves room for a holder's certificate."""
    if usage is None or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage:
        return True
    there = {oid.dotted_string for oid in usage}
    if rules.required_eku:
        return there.issuperset(rules.required_eku)
    return not there.isdisjoint(_CARD_PURPOSES)


def _is_legacy(chain: Chain) -> bool:
    """Whether it has a link that the strict way refuses for its age alone."""
    return any(map(is_sha1, chain[:-1])) or any(
        kind == "rsa" and bits < _STRICT_RSA_BITS for kind, bits in map(key_of, chain[1:])
    )


def _climb(chain: Chain, store: Store, rules: TrustRules, when: datetime) -> Iterator[Chain]:
    """The legacy way: every chain up to an anchor whose links the site admits."""
    below = chain[-1]
    if not rules.admitted or _is_refused(below, rules) or not _is_understood(below):
        return
    for issuer in (*store.anchors, *store.intermediates):
        anchored = issuer in store.anchors
        if issuer in chain or not (anchored or len(chain) <= DEPTH):
            continue
        if not issued(below, issuer) or _fault(issuer, len(chain) - 1, rules, when):
            continue
        if anchored:
            yield (*chain, issuer)
        else:
            yield from _climb((*chain, issuer), store, rules, when)


def _is_refused(certificate: x509.Certificate, rules: TrustRules) -> bool:
    """Whether the way it is signed is one that the site does not admit."""
    return is_sha1(certificate) and Legacy.SHA1 not in rules.admitted


def _is_understood(certificate: x509.Certificate) -> bool:
    """Whether it has no critical extension that is not applied here."""
    return all(each.oid in _APPLIED for each in certificate.extensions if each.critical)


def _fault(issuer: x509.Certificate, below: int, rules: TrustRules, when: datetime) -> str:
    """Why it cannot be an authority now, with so many authorities below it; "" if it can."""
    name = name_of(issuer.subject)
    constraints = extension(issuer, x509.BasicConstraints)
    usage = extension(issuer, x509.KeyUsage)
    if when > issuer.not_valid_after_utc:
        return f"the certificate of {name} expired on {issuer.not_valid_after_utc:%Y-%m-%d}"
    if when < issuer.not_valid_before_utc:
        return (
            f"the certificate of {name} is not valid before {issuer.not_valid_before_utc:%Y-%m-%d}"
        )
    if constraints is None or not constraints.ca or usage is None or not usage.key_cert_sign:
        return f"{name} is no authority that may sign certificates"
    if constraints.path_length is not None and below > constraints.path_length:
        return f"{name} may not have so many authorities below it"
    if not _serves(extension(issuer, x509.ExtendedKeyUsage), rules):
        return f"{name} is not for the certificates of cards"
    if extension(issuer, x509.NameConstraints) is not None or not _is_understood(issuer):
        return f"{name} has constraints that cannot be applied"
    return _weakness(issuer, rules, f"{name}'s")


def _why(
    leaf: x509.Certificate,
    known: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    rules: TrustRules,
    when: datetime,
) -> str:
    """Where the chain breaks, in words; "" if that cannot be seen from outside the verifier."""
    below, whose = leaf, "the certificate"
    for above in range(DEPTH + 1):
        if _is_refused(below, rules):
            return f"{whose} is signed with SHA-1, which is not admitted here"
        if is_self_signed(below):
            return f"{whose} is self-signed, and no anchor of this site"
        name = name_of(below.issuer)
        named = [each for each in known if each.subject == below.issuer]
        if not named:
            return f"the issuer of {whose}, {name}, is not known here"
        signers = [each for each in named if issued(below, each)]
        if not signers:
            return f"{whose} bears no valid signature of the {name} that is known here"
        faults = {each: _fault(each, above, rules, when) for each in signers}
        sound = [each for each, fault in faults.items() if not fault]
        if not sound:
            return faults[signers[0]]
        if not set(sound).isdisjoint(anchors):
            return ""
        below, whose = sound[0], f"the certificate of {name}"
    return "the chain is too long"


def _said(error: Exception) -> str:
    """The verifier's own reason, without its frame and without what it says of the holder."""
    text = str(error).partition(" (encountered")[0].rpartition("validation failed: ")[2]
    return f"the chain does not hold: {clean(text.removeprefix('candidates exhausted: '))}"
