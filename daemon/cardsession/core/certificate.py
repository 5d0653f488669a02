"""What can be asked of one certificate, and of one authority about what it signed.

Imports cryptography at once: import this late, in a worker.
"""

from __future__ import annotations

from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from .text import clean

T = TypeVar("T", bound=x509.ExtensionType)

UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)
"""What cryptography raises for what it cannot take apart."""
_NAME_CHARS = 64
_SHA1 = {
    SignatureAlgorithmOID.RSA_WITH_SHA1,
    SignatureAlgorithmOID.ECDSA_WITH_SHA1,
    x509.ObjectIdentifier("1.3.14.3.2.29"),  # sha1WithRSASignature, as old authorities have it
}


def opened(der: bytes) -> x509.Certificate | None:
    """A certificate whose every part that is asked for here can be read; else None."""
    try:
        found = x509.load_der_x509_certificate(der)
        readable(found)
    except Exception:  # whatever a card may hold in place of one
        return None
    return found


def readable(certificate: x509.Certificate) -> None:
    """ValueError or its like if a part cannot be read: cryptography parses at first use."""
    _ = certificate.subject, certificate.issuer, certificate.extensions, certificate.public_key()


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether it claims to be a CA's (RFC 5280 clause 4.2.1.9)."""
    constraints = extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def is_self_signed(certificate: x509.Certificate) -> bool:
    """Whether its own key signed it."""
    return issued(certificate, certificate)


def issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the names fit and the issuer's key made the signature, be it with SHA-1."""
    if certificate.issuer != issuer.subject:
        return False
    try:
        if is_sha1(certificate):
            return sha1_holds(issuer, certificate.signature, certificate.tbs_certificate_bytes)
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


def is_sha1(signed: x509.Certificate | x509.CertificateRevocationList) -> bool:
    """Whether SHA-1 is what its signature is made of."""
    return signed.signature_algorithm_oid in _SHA1


def sha1_holds(issuer: x509.Certificate, signature: bytes, signed: bytes) -> bool:
    """By the key alone: cryptography 50 refuses SHA-1 when asked of a certificate or a list."""
    key = issuer.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, signed, ec.ECDSA(hashes.SHA1()))  # noqa: S303
        else:
            return False
    except InvalidSignature:
        return False
    return True


def name_of(name: x509.Name) -> str:
    """What people call it: its common name, else all of it; short and clean."""
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return clean(found[0].value if found else name.rfc4514_string())[:_NAME_CHARS]


def extension(
    source: x509.Certificate | x509.CertificateRevocationList | x509.RevokedCertificate,
    kind: type[T],
) -> T | None:
    """The extension of that kind, if it is there."""
    try:
        return source.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def key_of(certificate: x509.Certificate) -> tuple[str, int]:
    """`rsa` or `ec` and the bits of its modulus or curve; ("", 0) for any other key."""
    try:
        match certificate.public_key():
            case rsa.RSAPublicKey() as key:
                return "rsa", key.key_size
            case ec.EllipticCurvePublicKey() as key:
                return "ec", key.key_size
    except UNREADABLE:
        pass  # a key that cannot be read spoils no other fact
    return "", 0
