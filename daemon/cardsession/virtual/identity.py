"""Keys and certificates of a card, made on the spot by a test authority made on the spot.

The only module here that imports `cryptography`. Nothing is kept unless the caller asks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.x509.oid import NameOID

from cardsession.virtual.options import ELLIPTIC, Algorithm, CardOptions, Slot

_AUTHORITY_YEARS: Final = 10
_YEAR: Final = 365
_ALGORITHM_ID: Final = {
    Algorithm.RSA2048: 0x07,
    Algorithm.RSA3072: 0x05,
    Algorithm.P256: 0x11,
    Algorithm.P384: 0x14,
}
_RSA_BITS: Final = {Algorithm.RSA2048: 2048, Algorithm.RSA3072: 3072, Algorithm.RSA4096: 4096}
_DIGESTS: Final = {
    kind.digest_size: kind
    for kind in (hashes.SHA1, hashes.SHA224, hashes.SHA256, hashes.SHA384, hashes.SHA512)
}
_Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
_Hash = hashes.SHA256 | hashes.SHA384


def _name(organisation: str, unit: str, common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _usage(*, signs: bool, commits: bool, manages: bool, agrees: bool, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=commits,
        key_encipherment=manages and not agrees,
        data_encipherment=False,
        key_agreement=manages and agrees,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _slot_usage(slot: Slot, algorithm: Algorithm) -> x509.KeyUsage:
    manages = slot is Slot.KEY_MANAGEMENT
    return _usage(
        signs=not manages,
        commits=slot is Slot.SIGNATURE,
        manages=manages,
        agrees=algorithm in ELLIPTIC,
        ca=False,
    )


class Key:
    """A private key that does what GENERAL AUTHENTICATE or COMPUTE DIGITAL SIGNATURE asks."""

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self._private: _Private
        match algorithm:
            case Algorithm.RSA2048 | Algorithm.RSA3072 | Algorithm.RSA4096:
                bits = _RSA_BITS[algorithm]
                self._private = rsa.generate_private_key(public_exponent=65537, key_size=bits)
            case Algorithm.P256:
                self._private = ec.generate_private_key(ec.SECP256R1())
            case Algorithm.P384:
                self._private = ec.generate_private_key(ec.SECP384R1())

    @property
    def public(self) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
        """The public key."""
        return self._private.public_key()

    @property
    def identifier(self) -> int:
        """PIV's number for the algorithm; KeyError if it has none."""
        return _ALGORITHM_ID[self.algorithm]

    def challenge(self, value: bytes) -> bytes:
        """RSA: `value` is a padded block, decrypted raw. EC: a hash, signed (DER). ValueError."""
        if isinstance(self._private, rsa.RSAPrivateKey):
            return self.raw(value)
        digest: _Hash = (
            hashes.SHA384() if self.size > hashes.SHA256.digest_size else (hashes.SHA256())
        )
        if not value or len(value) > digest.digest_size:
            raise ValueError("the challenge does not fit the key")
        hashed = value.rjust(digest.digest_size, b"\0")
        return self._private.sign(hashed, ec.ECDSA(Prehashed(digest)))

    def agree(self, point: bytes) -> bytes:
        """ECDH with an uncompressed point. ValueError when the key cannot, or the point is off."""
        if isinstance(self._private, rsa.RSAPrivateKey):
            raise ValueError("an RSA key agrees nothing")
        other = ec.EllipticCurvePublicKey.from_encoded_point(self._private.curve, point)
        return self._private.exchange(ec.ECDH(), other)

    @property
    def size(self) -> int:
        """Bytes of an RSA modulus, or of a coordinate."""
        return (self._private.key_size + 7) // 8

    def raw(self, value: bytes) -> bytes:
        """The RSA operation on a block that is padded already. ValueError if it fits not."""
        if not isinstance(self._private, rsa.RSAPrivateKey):
            raise ValueError("an elliptic curve key has no raw operation")
        numbers = self._private.private_numbers()
        block, modulus = int.from_bytes(value, "big"), numbers.public_numbers.n
        if len(value) != self.size or block >= modulus:
            raise ValueError("the challenge does not fit the key")
        return pow(block, numbers.d, modulus).to_bytes(self.size, "big")

    def sign_plain(self, digest: bytes) -> bytes:
        """ECDSA over a digest no longer than the curve, r and s in a row. ValueError."""
        if isinstance(self._private, rsa.RSAPrivateKey):
            raise ValueError("an RSA key signs no plain digest")
        kind = _DIGESTS.get(len(digest))
        if kind is None or len(digest) > self.size:
            raise ValueError("the digest does not fit the key")
        both = decode_dss_signature(self._private.sign(digest, ec.ECDSA(Prehashed(kind()))))
        return b"".join(number.to_bytes(self.size, "big") for number in both)


class Authority:
    """A P-256 certification authority, `O=nhs, OU=CA, CN=Test SubCA` unless named otherwise."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self.certificate = certificate

    @classmethod
    def make(cls, common: str = "Test SubCA", now: datetime | None = None) -> Authority:
        """A new authority, valid ten years either side of `now`."""
        now = now or datetime.now(UTC)
        key = ec.generate_private_key(ec.SECP256R1())
        name, span = _name("nhs", "CA", common), timedelta(days=_AUTHORITY_YEARS * _YEAR)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = _builder(name, name, key.public_key(), now - span, now + span)
        usage = _usage(signs=False, commits=False, manages=False, agrees=False, ca=True)
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(identifier, critical=False)
        )
        return cls(key, builder.sign(key, hashes.SHA256()))

    @classmethod
    def kept(cls, path: Path) -> Authority:
        """The authority in the PEM file `path` (key and certificate), made if it is not there."""
        if not path.exists():
            made = cls.make()
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                out.write(made.key_pem() + made.pem())
            return made
        data = path.read_bytes()
        try:
            key = serialization.load_pem_private_key(data, None)
        except ValueError:
            raise ValueError(f"{path} holds no private key in PEM") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{path} holds no elliptic curve key")
        return cls(key, x509.load_pem_x509_certificate(data))

    def key_pem(self) -> bytes:
        """The key, unencrypted: it signs test certificates only."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def der(self) -> bytes:
        """The authority's certificate, DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def pem(self) -> bytes:
        """The authority's certificate, PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, key: Key, slot: Slot, options: CardOptions, end: datetime) -> bytes:
        """A certificate for one slot, DER, valid `options.valid_days` up to `end`."""
        subject = _name(options.organisation, options.unit, options.holder)
        start = end - timedelta(days=options.valid_days)
        builder = _builder(subject, self.certificate.subject, key.public, start, end)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            builder.add_extension(_slot_usage(slot, key.algorithm), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public), critical=False)
            .add_extension(authority, critical=False)
        )
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.DER)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=public,
        serial_number=x509.random_serial_number(),
        not_valid_before=start.replace(tzinfo=None),
        not_valid_after=end.replace(tzinfo=None),
    )


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose card it is: keys and certificates (DER) by slot."""

    guid: bytes
    expires: datetime
    keys: dict[Slot, Key]
    certificates: dict[Slot, bytes]


def personalise(
    options: CardOptions, authority: Authority, now: datetime | None = None
) -> Identity:
    """Make the keys and certificates of one card; a fresh GUID unless the options name one."""
    end = (now or datetime.now(UTC)).replace(microsecond=0) + timedelta(days=options.days_left)
    keys = {slot: Key(options.algorithm) for slot in options.slots}
    certificates = {slot: authority.issue(key, slot, options, end) for slot, key in keys.items()}
    return Identity(options.guid or os.urandom(16), end, keys, certificates)
