"""Authorities, certificates and revocation lists of every age and kind, made on the spot.

cryptography signs nothing with SHA-1 and no list without an end: such a thing is made whole first,
then taken apart, changed, and signed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

NOW = 1_790_000_000
"""The time of every test (Unix seconds)."""
DAY = 86_400
LOGON = "1.3.6.1.4.1.311.20.2.2"
CLIENT = "1.3.6.1.5.5.7.3.2"
SERVER = "1.3.6.1.5.5.7.3.1"

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Extension = tuple[x509.ExtensionType, bool]
"""And whether it is critical."""

_SHA1_RSA = bytes.fromhex("300D06092A864886F70D0101050500")
_SHA1_EC = bytes.fromhex("300906072A8648CE3D0401")
_KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def at(days: float) -> datetime:
    """So many days from NOW."""
    return datetime.fromtimestamp(NOW, UTC) + timedelta(days=days)


@cache
def rsa_key(bits: int = 2048, which: object = None) -> rsa.RSAPrivateKey:
    """One key for each size and `which`: they take time."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def ec_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    """A fresh one, on P-256 unless told."""
    return ec.generate_private_key(curve or ec.SECP256R1())


def name(common: str, unit: str = "CA", organisation: str = "nhs") -> x509.Name:
    """As the NHS has them."""
    kinds = (
        (NameOID.ORGANIZATION_NAME, organisation),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
        (NameOID.COMMON_NAME, common),
    )
    return x509.Name([x509.NameAttribute(kind, text) for kind, text in kinds if text])


def usage(*which: str) -> x509.KeyUsage:
    """Key usage by its names."""
    return x509.KeyUsage(**{each: each in which for each in _KEY_USAGES})


def eku(*oids: str) -> Extension:
    """Extended key usage."""
    return x509.ExtendedKeyUsage([x509.ObjectIdentifier(oid) for oid in oids]), False


def constraints(ca: bool = True, length: int | None = None, critical: bool = True) -> Extension:
    """Basic constraints."""
    return x509.BasicConstraints(ca=ca, path_length=length), critical


CA_USAGE: Extension = (usage("key_cert_sign", "crl_sign"), True)
LEAF_USAGE: Extension = (usage("digital_signature"), True)


def directory_point(common: str) -> x509.DistributionPoint:
    """A distribution point that is a directory's name, not a URL."""
    return x509.DistributionPoint([x509.DirectoryName(name(common))], None, None, None)


@dataclass(frozen=True)
class Authority:
    """A key, its certificate, and what it signs; `sha1` makes it sign like 2016."""

    key: Private
    certificate: x509.Certificate
    sha1: bool = False

    @property
    def name(self) -> x509.Name:
        return self.certificate.subject

    def issue(
        self,
        subject: x509.Name,
        key: Private,
        extensions: Iterable[Extension] = (LEAF_USAGE,),
        days: tuple[float, float] = (-100, 100),
    ) -> x509.Certificate:
        """A certificate for `key`, valid from and until so many days from NOW."""
        return signed(self, subject, key, extensions, days)

    def leaf(
        self,
        *extra: Extension,
        key: Private | None = None,
        days: tuple[float, float] = (-100, 100),
        usage: bool = True,
    ) -> x509.Certificate:
        """A holder's, `O=nhs, OU=people, CN=<12 digits>`."""
        extensions = (*((LEAF_USAGE,) if usage else ()), *extra)
        return self.issue(name("555012345678", "people"), key or ec_key(), extensions, days)

    def sub(
        self,
        common: str = "SubCA02",
        *extra: Extension,
        key: Private | None = None,
        days: tuple[float, float] = (-1000, 1000),
        basic: Extension | None = None,
        sha1: bool = False,
    ) -> Authority:
        """An authority below this one."""
        key = key or ec_key()
        extensions = (basic or constraints(), CA_USAGE, *extra)
        return Authority(key, self.issue(name(common), key, extensions, days), sha1)

    def revoke(self, *certificates: x509.Certificate, **options: object) -> Revoked:
        """A list that names these; see `Revoked`."""
        return Revoked(self, certificates, **options)  # type: ignore[arg-type]


def root(
    common: str = "Root",
    *extra: Extension,
    key: Private | None = None,
    days: tuple[float, float] = (-2000, 2000),
    extensions: Iterable[Extension] = (constraints(), CA_USAGE),
    sha1: bool = False,
) -> Authority:
    """An authority that signed itself."""
    key = key or ec_key()
    own = Authority(key, None, sha1)  # type: ignore[arg-type]
    return Authority(key, signed(own, name(common), key, (*extensions, *extra), days), sha1)


def signed(
    issuer: Authority,
    subject: x509.Name,
    key: Private,
    extensions: Iterable[Extension],
    days: tuple[float, float],
) -> x509.Certificate:
    """One certificate; an issuer without one of its own is the subject."""
    builder = x509.CertificateBuilder(
        issuer_name=issuer.name if issuer.certificate else subject,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=at(days[0]),
        not_valid_after=at(days[1]),
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    made = builder.sign(issuer.key, hashes.SHA256())
    if not issuer.sha1:
        return made
    raw = resigned(made.public_bytes(Encoding.DER), issuer.key, algorithm_at=2)
    return x509.load_der_x509_certificate(raw)


@dataclass(frozen=True)
class Revoked:
    """A revocation list to be: what it names, when, and with what extensions."""

    authority: Authority
    certificates: tuple[x509.Certificate, ...] = ()
    days: tuple[float, float] = (-1, 1)
    reason: x509.ReasonFlags | None = None
    extensions: tuple[Extension, ...] = ()
    signer: Private | None = None
    """Another key than the authority's."""
    endless: bool = False
    """Without nextUpdate."""
    entry: tuple[Extension, ...] = field(default=())

    def make(self) -> x509.CertificateRevocationList:
        """The list, signed."""
        builder = x509.CertificateRevocationListBuilder(
            self.authority.name, at(self.days[0]), at(self.days[1])
        )
        for each in self.certificates:
            builder = builder.add_revoked_certificate(self._entry(each))
        for value, critical in self.extensions:
            builder = builder.add_extension(value, critical=critical)
        key = self.signer or self.authority.key
        made = builder.sign(key, hashes.SHA256())
        if not (self.endless or self.authority.sha1):
            return made
        drop = (lambda parts: [*parts[:4], *parts[5:]]) if self.endless else list
        raw = made.public_bytes(Encoding.DER)
        sha1 = self.authority.sha1
        return x509.load_der_x509_crl(resigned(raw, key, algorithm_at=1, change=drop, sha1=sha1))

    def _entry(self, certificate: x509.Certificate) -> x509.RevokedCertificate:
        builder = x509.RevokedCertificateBuilder(certificate.serial_number, at(-30))
        if self.reason:
            builder = builder.add_extension(x509.CRLReason(self.reason), critical=False)
        for value, critical in self.entry:
            builder = builder.add_extension(value, critical=critical)
        return builder.build()


def resigned(
    raw: bytes,
    key: Private,
    algorithm_at: int,
    change: Callable[[list[bytes]], list[bytes]] = list,
    sha1: bool = True,
) -> bytes:
    """A signed structure (RFC 5280 clause 4.1) with its inner parts changed, signed anew."""
    body, algorithm, _ = parts(raw)
    inner = parts(body)
    if sha1:
        algorithm = _SHA1_RSA if isinstance(key, rsa.RSAPrivateKey) else _SHA1_EC
        inner[algorithm_at] = algorithm
    body = tlv(0x30, *change(inner))
    digest = hashes.SHA1() if sha1 else hashes.SHA256()  # noqa: S303 - the point
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(body, padding.PKCS1v15(), digest)
    else:
        signature = key.sign(body, ec.ECDSA(digest))
    return tlv(0x30, body, algorithm, tlv(0x03, b"\0", signature))


def tlv(tag: int, *content: bytes) -> bytes:
    """DER."""
    body = b"".join(content)
    size = len(body)
    if size < 0x80:
        return bytes([tag, size]) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def parts(raw: bytes) -> list[bytes]:
    """The elements of one DER sequence, each whole."""
    start, end = _span(raw, 0)
    found = []
    while start < end:
        _, after = _span(raw, start)
        found.append(raw[start:after])
        start = after
    return found


def _span(raw: bytes, at: int) -> tuple[int, int]:
    """Where the content of the element at `at` begins and ends."""
    first = raw[at + 1]
    if first < 0x80:
        return at + 2, at + 2 + first
    start = at + 2 + (first & 0x7F)
    return start, start + int.from_bytes(raw[at + 2 : start], "big")


def pem(*made: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    """One PEM file of them."""
    return b"".join(each.public_bytes(Encoding.PEM) for each in made)


def der(made: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    """DER of one."""
    return made.public_bytes(Encoding.DER)
