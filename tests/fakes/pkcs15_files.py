"""The files of PKCS#15 cards, written byte by byte.

The encoder here is not the one that the reader's parser comes with: a mistake that both would
make cannot hide.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

AID = bytes.fromhex("A000000063504B43532D3135")
APP = "3F005015"
LOCAL, CHANGE_DISABLED, UNBLOCK_DISABLED, INITIALIZED, PADDED, UNBLOCKING, OFFICER = range(1, 8)
DECRYPT, SIGN, UNWRAP, COMMITS = 1, 2, 5, 9
ATR = bytes.fromhex("3B80")
CANARY_PIN = b"73194682"


# DER, by hand


def tlv(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + body


def seq(*parts: bytes) -> bytes:
    return tlv(0x30, *parts)


def octets(value: bytes) -> bytes:
    return tlv(0x04, value)


def text(value: str) -> bytes:
    return tlv(0x0C, value.encode())


def num(value: int, tag: int = 0x02) -> bytes:
    return tlv(tag, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def bits(*numbers: int) -> bytes:
    size = max(numbers, default=-1) + 1
    value = sum(1 << (7 - n % 8) << 8 * (((size + 7) // 8) - 1 - n // 8) for n in numbers)
    return tlv(0x03, bytes([-size % 8]) + value.to_bytes((size + 7) // 8, "big"))


def path(where: str, index: int | None = None, length: int | None = None) -> bytes:
    extra = [num(index)] if index is not None else []
    extra += [num(length, 0x80)] if length is not None else []
    return seq(octets(bytes.fromhex(where)), *extra)


def pin_entry(  # noqa: PLR0913 - a PIN's entry has that many parts
    label: str = "PIN",
    auth_id: int = 1,
    reference: int = 1,
    flags: tuple[int, ...] = (LOCAL, INITIALIZED, PADDED),
    *,
    coding: int = 1,
    lengths: tuple[int, ...] = (4, 8, 8),
    pad: bytes | None = b"\xff",
    where: str = "",
    guarded_by: int | None = None,
) -> bytes:
    attributes = [bits(*flags), num(coding, 0x0A), *map(num, lengths), num(reference, 0x80)]
    attributes += [octets(pad)] if pad is not None else []
    attributes += [path(where)] if where else []
    guard = [octets(bytes([guarded_by]))] if guarded_by else []
    common = seq(text(label), bits(0), *guard)
    return seq(common, seq(octets(bytes([auth_id]))), tlv(0xA1, seq(*attributes)))


def key_entry(  # noqa: PLR0913 - as a PIN's
    identifier: int = 1,
    usage: tuple[int, ...] = (SIGN,),
    reference: int | None = 1,
    *,
    label: str = "Key",
    auth_id: int | None = 1,
    consent: int | None = None,
    elliptic: bool = False,
    size: int = 2048,
    where: str = APP,
    algorithms: tuple[int, ...] = (),
) -> bytes:
    common = [text(label), bits(0)]
    common += [octets(bytes([auth_id]))] if auth_id else []
    common += [num(consent)] if consent is not None else []
    own = [octets(bytes([identifier])), bits(*usage), tlv(0x01, b"\xff"), bits(0, 2)]
    own += [num(reference)] if reference is not None else []
    own += [tlv(0xA1, *map(num, algorithms))] if algorithms else []
    value = [path(where)] + ([] if elliptic else [num(size)])
    return tlv(0xA0 if elliptic else 0x30, seq(*common), seq(*own), tlv(0xA1, seq(*value)))


def certificate_entry(  # noqa: PLR0913 - as a PIN's
    identifier: int = 1,
    where: str = APP + "4301",
    *,
    label: str = "Certificate",
    authority: bool | None = None,
    direct: bytes = b"",
    part: tuple[int, int] | None = None,
) -> bytes:
    own = [octets(bytes([identifier]))]
    own += [tlv(0x01, b"\xff" if authority else b"\x00")] if authority is not None else []
    value = tlv(0xA0, direct) if direct else path(where, *(part or ()))
    return seq(seq(text(label)), seq(*own), tlv(0xA1, seq(value)))


def token_entry(
    serial: bytes = b"\x12\x34\x56\x78",
    manufacturer: str = "Maker",
    label: str = "Token",
    algorithms: tuple[tuple[int, int, int | None], ...] = (),
) -> bytes:
    """Algorithms: reference, PKCS #11 mechanism, the card's own reference."""
    infos = [
        seq(
            num(reference), num(mechanism), tlv(0x05), bits(1),
            *([num(own)] if own is not None else []),
        )
        for reference, mechanism, own in algorithms
    ]  # fmt: skip
    listed = [tlv(0xA2, *infos)] if infos else []
    head = [num(0), octets(serial), text(manufacturer), tlv(0x80, label.encode()), bits(2)]
    return seq(*head, *listed)


def odf(**where: str) -> bytes:
    tags = {"keys": 0xA0, "certificates": 0xA4, "trusted": 0xA5, "useful": 0xA6, "pins": 0xA8}
    return b"".join(tlv(tags[name], path(file)) for name, file in where.items())


def dir_entry(where: str = APP, aid: bytes = AID, ddo: bytes = b"") -> bytes:
    parts = [tlv(0x4F, aid), tlv(0x50, b"PKCS15")]
    parts += [tlv(0x51, bytes.fromhex(where))] if where else []
    parts += [tlv(0x73, ddo)] if ddo else []
    return tlv(0x61, *parts)


def private_key(kind: str, number: int = 0) -> Any:
    """A key of the tests': `rsa2048`, `p256`, ...; another one for another number."""
    return _private_key(kind, number)


@cache
def _private_key(kind: str, number: int) -> Any:
    del number
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind[3:]))
    return ec.generate_private_key({"p256": ec.SECP256R1(), "p384": ec.SECP384R1()}[kind])


def certificate(kind: str = "p256", number: int = 0) -> bytes:
    """One for that key, signed by itself."""
    return _certificate(kind, number)


@cache
def _certificate(kind: str, number: int) -> bytes:
    key = private_key(kind, number)
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "555500001111")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(who, who, key.public_key(), number + 1, now, now + timedelta(9))
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def public_pem(kind: str, number: int = 0) -> bytes:
    return (
        private_key(kind, number)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def standard_files(kind: str = "rsa2048", **token: Any) -> dict[str, bytes]:
    """One PIN, one key, one certificate: the usual places."""
    elliptic = not kind.startswith("rsa")
    return {
        "3F002F00": dir_entry(),
        APP + "5031": odf(pins=APP + "4401", keys=APP + "4402", certificates=APP + "4403"),
        APP + "5032": token_entry(**token),
        APP + "4401": pin_entry(),
        APP + "4402": key_entry(elliptic=elliptic),
        APP + "4403": certificate_entry(),
        APP + "4301": certificate(kind),
    }
