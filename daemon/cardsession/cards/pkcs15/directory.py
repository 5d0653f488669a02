"""What an application's directory files hold, read once when the card comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cardsession.core import tlv
from cardsession.core.dialogue import Dialogue
from cardsession.core.errors import Malformed

from .application import token_path
from .files import Files, Home
from .objects import (
    ENTRIES_LIMIT,
    AuthenticationObject,
    CertificateObject,
    Kind,
    PrivateKey,
    Reference,
    TokenInfo,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Contents:
    """An application's objects, in the card's own order."""

    token: TokenInfo
    pins: Sequence[AuthenticationObject] = ()
    keys: Sequence[PrivateKey] = ()
    certificates: Sequence[CertificateObject] = ()


def contents(files: Files, odf: Sequence[Reference]) -> Dialogue[Contents]:
    """The token's own file, its PINs, keys and certificates; what cannot be read is not there."""
    from . import asn1  # noqa: PLC0415 - it imports asn1crypto

    token = yield from token_info(files, files.home)
    pins = yield from objects(files, odf, Kind.AUTHENTICATION_OBJECTS, asn1.authentication_objects)
    keys = yield from objects(files, odf, Kind.PRIVATE_KEYS, asn1.private_keys)
    listed = yield from objects(files, odf, Kind.CERTIFICATES, asn1.certificates)
    return Contents(token, pins, keys, listed)


def token_info(files: Files, home: Home) -> Dialogue[TokenInfo]:
    """EF.TokenInfo; one that says nothing where it is absent or makes no sense."""
    from . import asn1  # noqa: PLC0415 - it imports asn1crypto

    content = yield from files.read(token_path(home), one_object=True)
    try:
        return asn1.token_info(content) if content else TokenInfo()
    except Malformed:
        return TokenInfo()


def objects(
    files: Files, odf: Sequence[Reference], kind: Kind, read: Callable[[bytes], list[T]]
) -> Dialogue[list[T]]:
    """All objects of one kind: the object directory may name several files, or have some itself."""
    found: list[T] = []
    for reference in odf:
        if reference.kind is kind and len(found) < ENTRIES_LIMIT:
            content: bytes | None = reference.direct
            if reference.path is not None:
                content = yield from files.read(reference.path)
            found += read(content) if content else []
    return found[:ENTRIES_LIMIT]


def certificate(files: Files, entry: CertificateObject) -> Dialogue[bytes | None]:
    """One certificate's DER; None if it cannot be read, or is none."""
    content: bytes | None = entry.direct
    if entry.path is not None:
        content = yield from files.read(entry.path, one_object=True)
    return _first(content) if content else None


def _first(content: bytes) -> bytes | None:
    try:
        tag, value = next(tlv.items(content), (0, b""))
    except Malformed:
        return None
    return tlv.encode(tag, value) if tag == 0x30 else None  # noqa: PLR2004 - SEQUENCE
