"""What a PKCS#15 card's files say: bytes in, records out.

A file that is none is `Malformed`; an entry that makes no sense, among others, is an entry less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from cardsession.core import tlv
from cardsession.core.errors import Malformed
from cardsession.core.text import clean

from .objects import (
    ENTRIES_LIMIT,
    PATH_LIMIT,
    AlgorithmInfo,
    AuthenticationObject,
    CertificateObject,
    Directories,
    Kind,
    Path,
    PrivateKey,
    Reference,
    TokenInfo,
)
from .schema import (
    CERTIFICATE,
    DDO,
    ECDSA,
    KEY,
    PATH,
    PIN,
    TOKEN_INFO,
    bits,
    byte,
    careful,
    content_of,
    given,
    needed,
    number,
    octets,
    parsed,
)

T = TypeVar("T")
_INTEGER, _BIT_STRING, _SEQUENCE, _DIRECT, _ELLIPTIC = 0x02, 0x03, 0x30, 0xA0, 0xA0
_SERIAL_LIMIT = 32
_COMPUTE_SIGNATURE = 1
"""The bit of `supportedOperations` (clause 8.10, Operations)."""


def directories(template: bytes) -> Directories:
    """The content of a discretionary template, tag 73 (clause 7.5.2: CIODDO)."""
    ddo = parsed(DDO, tlv.encode(_SEQUENCE, template))
    return Directories(careful(_path_at, ddo, "odfPath"), careful(_path_at, ddo, "tokenInfoPath"))


def references(odf: bytes) -> list[Reference]:
    """EF.ODF's entries of the kinds that we use (clause 8.3: PathOrObjects)."""
    return _each(odf, _reference)


def token_info(content: bytes) -> TokenInfo:
    """EF.TokenInfo."""
    return careful(_token_info, tlv.encode(_SEQUENCE, tlv.need(content, _SEQUENCE)))


def authentication_objects(content: bytes) -> list[AuthenticationObject]:
    """EF.AOD: its PINs; what else authenticates (a fingerprint, a key) is none of ours."""
    return _each(content, _pin)


def private_keys(content: bytes) -> list[PrivateKey]:
    """EF.PrKD: its RSA and EC keys."""
    return _each(content, _key)


def certificates(content: bytes) -> list[CertificateObject]:
    """EF.CD: its X.509 certificates."""
    return _each(content, _certificate)


def ecdsa_signature(r: int, s: int) -> bytes:
    """DER of ECDSA-Sig-Value (RFC 3279 clause 2.2.3)."""
    return bytes(ECDSA({"r": r, "s": s}).dump())


def is_ecdsa_signature(data: bytes) -> bool:
    """Whether this is such a value, as DER has it, and nothing more."""
    try:
        value = parsed(ECDSA, data)
        pair = careful(lambda: (value["r"].native, value["s"].native))
        return bool(min(pair) > 0 and ecdsa_signature(*pair) == data)
    except Malformed:
        return False


# how a value of the card's becomes one of ours


def _entries(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The objects of a file, up to one that is damaged."""
    try:
        yield from tlv.items(content)
    except Malformed:
        return


def _each(content: bytes, read: Callable[[int, bytes], T | None]) -> list[T]:
    """Every entry that makes sense, `ENTRIES_LIMIT` of them at most."""
    found: list[T] = []
    for at, (tag, value) in enumerate(_entries(content)):
        if at >= ENTRIES_LIMIT:
            break
        try:
            entry = careful(read, tag, value)
        except Malformed:
            continue
        if entry is not None:
            found.append(entry)
    return found


def _path(value: Any) -> Path:
    index, length = number(value["index"]), number(value["length"])
    if min(index or 0, length or 0) < 0:
        raise Malformed("a negative part of a file")
    return Path(octets(value["efidOrPath"], PATH_LIMIT), index, length)


def _path_at(value: Any, name: str) -> Path | None:
    return _path(value[name]) if given(value[name]) else None


def _reference(tag: int, value: bytes) -> Reference | None:
    kinds = {0xA0 | kind: kind for kind in Kind}
    if tag not in kinds:
        return None
    inner, content = next(tlv.items(value), (0, b""))
    if inner == _SEQUENCE:
        path = _path(parsed(PATH, tlv.encode(inner, content)))
        return Reference(kinds[tag], path)
    return Reference(kinds[tag], direct=content) if inner == _DIRECT else None


def _token_info(der: bytes) -> TokenInfo:
    info = parsed(TOKEN_INFO, der)
    listed = info["supportedAlgorithms"]
    return TokenInfo(
        serial=octets(info["serialNumber"])[:_SERIAL_LIMIT],
        manufacturer=clean(octets(info["manufacturerID"])).strip(),
        label=clean(octets(info["label"])).strip(),
        algorithms=tuple(_each(bytes(listed.contents or b""), _algorithm) if given(listed) else ()),
    )


def _algorithm(tag: int, value: bytes) -> AlgorithmInfo | None:
    """AlgorithmInfo; what stands for `parameters` is the algorithm's own affair, or left out."""
    parts = list(tlv.items(value)) if tag == _SEQUENCE else []
    numbers = [int.from_bytes(part[:8], "big") for tag, part in parts if tag == _INTEGER]
    at = next((at for at, (tag, _) in enumerate(parts) if tag == _BIT_STRING), len(parts))
    if len(numbers) < 2 or at == len(parts):  # noqa: PLR2004 - reference and algorithm
        return None
    operations = bits(parts[at][1])
    after = [part for tag, part in parts[at + 1 :] if tag == _INTEGER]
    return AlgorithmInfo(
        reference=numbers[0],
        mechanism=numbers[1],
        signs=_COMPUTE_SIGNATURE in operations,
        algorithm=after[0][-1] if after and after[0] else None,
    )


def _label(common: Any) -> str:
    return clean(octets(common["label"])).strip()


def _pin(tag: int, value: bytes) -> AuthenticationObject | None:
    if tag != _SEQUENCE:
        return None
    entry = parsed(PIN, tlv.encode(tag, value))
    common, attributes = entry["common"], entry["type"]
    pad = octets(attributes["padChar"])
    return AuthenticationObject(
        label=_label(common),
        auth_id=octets(entry["class"]["authId"]),
        guarded_by=octets(common["authId"]),
        flags=bits(content_of(attributes["pinFlags"])),
        coding=int.from_bytes(octets(attributes["pinType"], 1), "big"),
        min_length=needed(attributes["minLength"]),
        stored_length=needed(attributes["storedLength"]),
        max_length=number(attributes["maxLength"]),
        reference=byte(attributes["pinReference"]) or 0,
        pad=pad[0] if pad else None,
        path=_path_at(attributes, "path"),
    )


def _key(tag: int, value: bytes) -> PrivateKey | None:
    if tag not in (_SEQUENCE, _ELLIPTIC):
        return None
    entry = parsed(KEY, tlv.encode(_SEQUENCE, value))
    common, key, attributes = entry["common"], entry["class"], entry["type"]
    return PrivateKey(
        label=_label(common),
        identifier=octets(key["iD"]),
        auth_id=octets(common["authId"]),
        private=0 in bits(content_of(common["flags"])),
        user_consent=number(common["userConsent"]) or 0,
        usage=bits(content_of(key["usage"])),
        reference=byte(key["keyReference"]),
        key_type="rsa" if tag == _SEQUENCE else "ec",
        bits=(number(attributes["size"]) or 0) if tag == _SEQUENCE else 0,
        path=_value_path(attributes["value"]),
        algorithms=tuple(_each(content_of(key["algReference"]), _integer)),
    )


def _integer(tag: int, value: bytes) -> int | None:
    return int.from_bytes(value[-4:], "big") if tag == _INTEGER else None


def _value_path(value: Any) -> Path | None:
    """The path of an object that is elsewhere; some keys have an empty one, or another kind."""
    if value.name != "path" or not value.chosen.contents:
        return None
    path = _path(parsed(PATH, tlv.encode(_SEQUENCE, content_of(value.chosen))))
    return path if path.value else None


def _certificate(tag: int, value: bytes) -> CertificateObject | None:
    if tag != _SEQUENCE:
        return None
    entry = parsed(CERTIFICATE, tlv.encode(tag, value))
    value_at = entry["type"]["value"]
    path = _value_path(value_at)
    direct = _direct(content_of(value_at.chosen)) if value_at.name == "direct" else b""
    if path is None and not direct:
        raise Malformed("a certificate that is nowhere")
    return CertificateObject(
        label=_label(entry["common"]),
        identifier=octets(entry["class"]["iD"]),
        authority=given(entry["class"]["authority"]) and bool(entry["class"]["authority"].native),
        path=path,
        direct=direct,
    )


def _direct(content: bytes) -> bytes:
    """A certificate under [0]; where the tag took the place of its own (which the standard does
    not mean), its three parts are in there."""
    parts = list(tlv.items(content))
    alone = len(parts) == 1 and parts[0][0] == _SEQUENCE
    return content if alone else tlv.encode(_SEQUENCE, content)
