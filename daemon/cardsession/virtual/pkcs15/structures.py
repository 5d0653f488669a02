"""The objects of PKCS#15 v1.1 clause 6 and ISO/IEC 7816-15 as DER. IMPLICIT TAGS throughout,
but for a tag on a CHOICE or on a parameter of a type, which X.680 makes explicit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from cardsession.virtual.identity import Key
from cardsession.virtual.options import Algorithm
from cardsession.virtual.pkcs15 import der
from cardsession.virtual.pkcs15.options import Mechanism, PinType
from cardsession.virtual.pkcs15.passcode import Format
from cardsession.virtual.tlv import tlv


class PinFlag(IntEnum):
    """PinFlags, clause 6.8.2."""

    CASE_SENSITIVE = 0
    LOCAL = 1
    CHANGE_DISABLED = 2
    UNBLOCK_DISABLED = 3
    INITIALIZED = 4
    NEEDS_PADDING = 5
    UNBLOCKING_PIN = 6
    SO_PIN = 7


class ObjectClass(IntEnum):
    """The choices of PKCS15Objects, clause 6.2: context tags in the ODF."""

    PRIVATE_KEYS = 0
    CERTIFICATES = 4
    TRUSTED_CERTIFICATES = 5
    AUTH_OBJECTS = 8


_PIN_TYPE: Final = {
    PinType.BCD: 0,
    PinType.ASCII_NUMERIC: 1,
    PinType.UTF8: 2,
    PinType.HALF_NIBBLE_BCD: 3,
    PinType.ISO9564_1: 4,
}
_CURVE: Final = {Algorithm.P256: "1.2.840.10045.3.1.7", Algorithm.P384: "1.3.132.0.34"}
_BITS: Final = {
    Algorithm.RSA2048: 2048,
    Algorithm.RSA3072: 3072,
    Algorithm.RSA4096: 4096,
    Algorithm.P256: 256,
    Algorithm.P384: 384,
}
_OID: Final = {
    Mechanism.RSA_PKCS: "1.2.840.113549.1.1.1",
    Mechanism.RSA_X_509: "1.2.840.113549.1.1.1",
    Mechanism.SHA256_RSA_PKCS: "1.2.840.113549.1.1.11",
    Mechanism.SHA384_RSA_PKCS: "1.2.840.113549.1.1.12",
    Mechanism.SHA512_RSA_PKCS: "1.2.840.113549.1.1.13",
    Mechanism.ECDSA: "1.2.840.10045.2.1",
}
_PRIVATE, _MODIFIABLE = 0, 1
_LOGIN_REQUIRED: Final = 1
_COMPUTE_SIGNATURE: Final = 1
_SIGN, _NON_REPUDIATION = 2, 9
_SENSITIVE, _ALWAYS_SENSITIVE, _NEVER_EXTRACTABLE = 0, 2, 3


@dataclass(frozen=True, slots=True)
class Path:
    """A place: a file, or a part of it."""

    file: bytes
    index: int | None = None
    length: int = 0

    def encode(self, tag: int = der.SEQUENCE) -> bytes:
        """PKCS15Path, clause 6.1.1."""
        part = b""
        if self.index is not None:
            part = der.integer(self.index) + der.integer(self.length, 0x80)
        return tlv(tag, der.octets(self.file) + part)


@dataclass(frozen=True, slots=True)
class AlgorithmInfo:
    """One entry of supportedAlgorithms; `alg_ref` is what MSE SET takes in tag 80."""

    reference: int
    mechanism: Mechanism
    alg_ref: int

    def encode(self) -> bytes:
        """PKCS15AlgorithmInfo with algId and algRef, ISO/IEC 7816-15 clause 8.10."""
        return der.sequence(
            der.integer(self.reference),
            der.integer(self.mechanism),
            der.NULL,
            der.named_bits([_COMPUTE_SIGNATURE]),
            der.oid(_OID[self.mechanism]),
            der.integer(self.alg_ref),
        )


def token_info(
    serial: bytes, manufacturer: str, label: str, algorithms: Iterable[AlgorithmInfo]
) -> bytes:
    """PKCS15TokenInfo, clause 6.9."""
    infos = b"".join(info.encode() for info in algorithms)
    return der.sequence(
        der.integer(0),
        der.octets(serial),
        der.text(manufacturer),
        der.text(label, 0x80),
        der.named_bits([_LOGIN_REQUIRED]),
        tlv(0xA2, infos) if infos else b"",
    )


def common(
    label: str, *, modifiable: bool, private: bool = False, auth: bytes = b"", consent: bool = False
) -> bytes:
    """PKCS15CommonObjectAttributes, clause 6.1.8."""
    flags = [_PRIVATE] * private + [_MODIFIABLE] * modifiable
    return der.sequence(
        der.text(label),
        der.named_bits(flags) if flags else b"",
        der.octets(auth) if auth else b"",
        der.integer(1) if consent else b"",
    )


@dataclass(frozen=True, slots=True)
class PinEntry:
    """One entry of the AODF. `auth` is the PIN that guards it: for a PIN, its PUK."""

    label: str
    identifier: bytes
    reference: int
    flags: frozenset[PinFlag]
    path: bytes
    auth: bytes = b""


def pin_object(entry: PinEntry, form: Format, *, tell_maximum: bool, short: bool) -> bytes:
    """A PIN of PKCS15AuthenticationType, clause 6.8."""
    reference = der.integer(entry.reference, 0x80)
    if short:
        reference = tlv(0x80, bytes([entry.reference]))
    attributes = der.sequence(
        der.named_bits(entry.flags),
        der.enumerated(_PIN_TYPE[form.kind]),
        der.integer(form.minimum),
        der.integer(form.stored),
        der.integer(form.maximum) if tell_maximum else b"",
        reference,
        der.octets(bytes([form.pad])) if form.pad is not None else b"",
        Path(entry.path).encode() if entry.path else b"",
    )
    changes = PinFlag.CHANGE_DISABLED not in entry.flags
    return der.sequence(
        common(entry.label, modifiable=changes, private=True, auth=entry.auth),
        der.sequence(der.octets(entry.identifier)),
        tlv(0xA1, attributes),
    )


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One entry of the PrKDF, and of the CDF: `identifier` links the two."""

    label: str
    identifier: bytes
    reference: int
    algorithms: tuple[int, ...]
    auth: bytes
    path: bytes
    commits: bool
    consent: bool


def private_key(entry: KeyEntry, key: Key, *, field_size: bool, short: bool) -> bytes:
    """PKCS15PrivateKeyType, clause 6.3: an RSA key untagged, an EC key as [0]."""
    rsa = key.algorithm not in _CURVE
    reference = der.integer(entry.reference)
    if short:
        reference = tlv(0x02, bytes([entry.reference]))
    algorithms = b"".join(der.integer(number) for number in entry.algorithms)
    usage = [_SIGN, _NON_REPUDIATION] if entry.commits else [_SIGN]
    return tlv(
        der.SEQUENCE if rsa else 0xA0,
        common(entry.label, modifiable=False, private=True, auth=entry.auth, consent=entry.consent)
        + der.sequence(
            der.octets(entry.identifier),
            der.named_bits(usage),
            # native is TRUE by default, and DER leaves defaults out.
            der.named_bits([_SENSITIVE, _ALWAYS_SENSITIVE, _NEVER_EXTRACTABLE]),
            reference,
            tlv(0xA1, algorithms) if algorithms else b"",
        )
        + tlv(0xA1, der.sequence(Path(entry.path).encode(), _key_type(key, field_size=field_size))),
    )


def _key_type(key: Key, *, field_size: bool) -> bytes:
    """modulusLength of an RSA key; KeyInfo of an EC key: its curve, and what it does."""
    if key.algorithm not in _CURVE:
        return der.integer(_BITS[key.algorithm])
    size = der.integer(_BITS[key.algorithm]) if field_size else b""
    operations = der.named_bits([_COMPUTE_SIGNATURE])
    return size + der.sequence(der.oid(_CURVE[key.algorithm]), operations)


def certificate(
    label: str, identifier: bytes, place: Path | bytes, *, authority: bool = False
) -> bytes:
    """An X.509 entry of the CDF, clause 6.6: the certificate's place, or the certificate."""
    value = place.encode() if isinstance(place, Path) else tlv(0xA0, place)
    return der.sequence(
        common(label, modifiable=False),
        der.sequence(der.octets(identifier), der.boolean(value=True) if authority else b""),
        tlv(0xA1, der.sequence(value)),
    )


def directory_entry(kind: ObjectClass, path: bytes) -> bytes:
    """One entry of the ODF: where the objects of a class are."""
    return tlv(0xA0 | kind, Path(path).encode())


def objects_entry(kind: ObjectClass, objects: Iterable[bytes]) -> bytes:
    """One entry of the ODF with the objects themselves."""
    return tlv(0xA0 | kind, tlv(0xA0, b"".join(objects)))


def application_template(aid: bytes, label: str, path: bytes) -> bytes:
    """An entry of EF.DIR: ISO/IEC 7816-4 clause 12.2.3."""
    return tlv(0x61, tlv(0x4F, aid) + tlv(0x50, label.encode()) + tlv(0x51, path))
