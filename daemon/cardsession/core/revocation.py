"""What the site's revocation lists say of the certificates of a chain (RFC 5280 clauses 5, 6.3).

Imports cryptography at once: import this late, in a worker.

A list counts if the certificate's own issuer signed it, it is in time (from its thisUpdate up to,
not including, its nextUpdate; without one it is stale), it is complete, and the certificate is in
its scope; the newest that counts decides. Delta and indirect lists are not used, nor one with
another critical extension, nor, unless the site admits it, one that is signed with SHA-1. A list
for one distribution point serves the certificates that name this point, be it a directory name,
which is how the NHS's certificates have it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from .certificate import UNREADABLE, extension, is_authority, is_sha1, issued, name_of, sha1_holds
from .facts import Revocation
from .trust_rules import Legacy, TrustRules

_APPLIED = {
    ExtensionOID.ISSUING_DISTRIBUTION_POINT,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    ExtensionOID.CRL_NUMBER,
}
"""What may be critical in a list that is used."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of a revocation, and why it is not more; the text is clean."""

    revocation: Revocation
    detail: str = ""


class Lists:
    """The site's lists at one time, by its rules."""

    def __init__(
        self,
        lists: Iterable[x509.CertificateRevocationList],
        rules: TrustRules,
        when: datetime,
    ) -> None:
        self._lists = tuple(lists)
        self._admits_sha1 = Legacy.SHA1 in rules.admitted
        self._when = when

    def of_chain(self, chain: tuple[x509.Certificate, ...]) -> Finding:
        """Of the holder's certificate, first in the chain; a revoked authority counts as its own.

        Nobody is above the anchor, the last. A missing list of an authority's issuer is no fault:
        the property speaks of the holder.
        """
        holder, *authorities = pairwise(chain)
        said = self.of(*holder)
        if said.revocation is Revocation.REVOKED:
            return said
        for authority, issuer in authorities:
            above = self.of(authority, issuer)
            if above.revocation is Revocation.REVOKED:
                return replace(above, detail=f"{name_of(authority.subject)}: {above.detail}")
        return said

    def of_unproved(
        self, certificate: x509.Certificate, authorities: Iterable[x509.Certificate]
    ) -> Finding:
        """Of a certificate without a chain, if one of the site's authorities did sign it."""
        for issuer in authorities:
            if is_authority(issuer) and issued(certificate, issuer):
                said = self.of(certificate, issuer)
                if said.revocation is Revocation.REVOKED:
                    return said
        return Finding(Revocation.NOT_CHECKED)

    def of(self, certificate: x509.Certificate, issuer: x509.Certificate) -> Finding:
        """Of one certificate, by the lists of its issuer."""
        theirs = [each for each in self._lists if each.issuer == issuer.subject]
        theirs.sort(key=lambda each: each.last_update_utc, reverse=True)
        name, reasons = name_of(issuer.subject), []
        for each in theirs:
            reason = self._unusable(each, certificate, issuer)
            if not reason:
                return _entry(each, certificate)
            reasons.append(f"the list of {name} {reason}")
        reason = reasons[0] if reasons else f"there is no list of {name}"
        return Finding(Revocation.NOT_CHECKED, f"revocation not checked: {reason}")

    def _unusable(
        self,
        revoked: x509.CertificateRevocationList,
        certificate: x509.Certificate,
        issuer: x509.Certificate,
    ) -> str:
        """Why the list does not count; "" if it does."""
        usage = extension(issuer, x509.KeyUsage)
        if usage is not None and not usage.crl_sign:
            return "counts for nothing: it may not sign lists"
        if is_sha1(revoked) and not self._admits_sha1:
            return "is signed with SHA-1, which is not admitted here"
        if not _is_signed(revoked, issuer):
            return "is not signed by its key"
        if outside := _out_of_scope(revoked, certificate, issuer):
            return outside
        if revoked.last_update_utc > self._when:
            return f"is not valid before {revoked.last_update_utc:%Y-%m-%d}"
        until = revoked.next_update_utc
        if until is None or until <= self._when:
            known = _entry(revoked, certificate).revocation is Revocation.REVOKED
            has = ", and has it as revoked" if known else ""
            return f"is stale{f' since {until:%Y-%m-%d %H:%M} UTC' if until else ''}{has}"
        return ""


def readable(revoked: x509.CertificateRevocationList) -> None:
    """ValueError or its like if a part cannot be read: cryptography parses at first use."""
    _ = revoked.issuer, revoked.extensions, revoked.last_update_utc, revoked.next_update_utc


def _is_signed(revoked: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    """Whether the issuer's key signed the list, be it with SHA-1."""
    try:
        if is_sha1(revoked):
            return sha1_holds(issuer, revoked.signature, revoked.tbs_certlist_bytes)
        return revoked.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except UNREADABLE:  # a kind of key that signs nothing, an algorithm that is unknown
        return False


def _out_of_scope(
    revoked: x509.CertificateRevocationList,
    certificate: x509.Certificate,
    issuer: x509.Certificate,
) -> str:
    """Why the list's silence about the certificate would mean nothing; "" if it means something."""
    if extension(revoked, x509.DeltaCRLIndicator) is not None:
        return "is only the difference to another list"
    if any(each.critical and each.oid not in _APPLIED for each in revoked.extensions):
        return "has a critical extension that is not known here"
    part = extension(revoked, x509.IssuingDistributionPoint)
    if part is None:
        return ""
    if part.indirect_crl or part.only_some_reasons or part.relative_name:
        return "is an indirect one, or a part, that is not used here"
    authority = is_authority(certificate)
    wrong_kind = part.only_contains_user_certs if authority else part.only_contains_ca_certs
    if wrong_kind or part.only_contains_attribute_certs:
        return "is for another kind of certificates"
    if part.full_name and not _points(certificate, issuer).intersection(part.full_name):
        return "is for the certificates of another distribution point"
    return ""


def _points(certificate: x509.Certificate, issuer: x509.Certificate) -> set[x509.GeneralName]:
    """The names of the certificate's distribution points; without any, its issuer's name
    (RFC 5280 clause 6.3.3)."""
    authority = x509.DirectoryName(issuer.subject)
    found = extension(certificate, x509.CRLDistributionPoints)
    if found is None:
        return {authority}
    return {
        name
        for point in found
        if not point.reasons and (not point.crl_issuer or authority in point.crl_issuer)
        for name in point.full_name or ()
    }


def _entry(revoked: x509.CertificateRevocationList, certificate: x509.Certificate) -> Finding:
    """What the list says of one certificate. A hold is a revocation while it lasts; an entry
    that cannot be read is one for good."""
    found = revoked.get_revoked_certificate_by_serial_number(certificate.serial_number)
    if found is None:
        return Finding(Revocation.GOOD)
    try:
        given = extension(found, x509.CRLReason)
    except UNREADABLE:
        given = None
    if given is not None and given.reason is x509.ReasonFlags.remove_from_crl:
        return Finding(Revocation.GOOD)
    why = f" ({given.reason.value})" if given is not None else ""
    return Finding(Revocation.REVOKED, f"revoked on {found.revocation_date_utc:%Y-%m-%d}{why}")
