"""The ASN.1 types of ISO/IEC 7816-15 annex A and PKCS #15 v1.1, as far as we read them.

The only importer of asn1crypto, and imported itself only once such a card lies in a reader.
Whatever that parser makes of a hostile card's bytes ends here as `Malformed`. Types are asked for
one value deep; nothing recurses.

The module has implicit tags; but where a parameterized type stands under a tag (`typeAttributes`,
a direct value) the tag is explicit (ITU-T X.680 clause 31.2.7).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from asn1crypto import core

from cardsession.core.errors import Malformed

from .objects import IDENTIFIER_LIMIT

T = TypeVar("T")
_NUMBER_LIMIT = 8
"""Bytes of any number here; a length or a mechanism has four."""
_FLAG_BYTES = 8
_BYTE = 0x100
_OPTIONAL = {"optional": True}


def _sequence(*fields: tuple[str, Any] | tuple[str, Any, dict[str, Any]]) -> Any:
    """A SEQUENCE of these; elements after them are a newer standard's, and ignored."""
    return type("Sequence", (core.Sequence,), {"_fields": list(fields)})


def _optional(**tag: int) -> dict[str, Any]:
    return {**_OPTIONAL, **tag}


def _objects(class_attributes: Any, type_attributes: Any) -> Any:
    """PKCS15Object, CIO by its newer name (clause 8.2)."""
    return _sequence(
        ("common", COMMON),
        ("class", class_attributes),
        ("subclass", core.Sequence, _optional(explicit=0)),
        ("type", type_attributes, {"explicit": 1}),
    )


VALUE: Any = type(
    "ObjectValue",
    (core.Choice,),
    {
        "_alternatives": [
            ("path", core.Sequence),
            ("url", core.PrintableString),
            ("direct", core.Sequence, {"implicit": 0}),
            ("indirectProtected", core.Sequence, {"implicit": 1}),
            ("directProtected", core.Sequence, {"implicit": 2}),
        ]
    },
)
"""Where an object is (clause 8.2.6); opened only where it is of a kind that we read."""
PATH = _sequence(
    ("efidOrPath", core.OctetString),
    ("index", core.Integer, _OPTIONAL),
    ("length", core.Integer, _optional(implicit=0)),
)
DDO = _sequence(
    ("oid", core.ObjectIdentifier, _OPTIONAL),
    ("odfPath", PATH, _OPTIONAL),
    ("tokenInfoPath", PATH, _optional(implicit=0)),
)
TOKEN_INFO = _sequence(
    ("version", core.Integer),
    ("serialNumber", core.OctetString, _OPTIONAL),
    ("manufacturerID", core.UTF8String, _OPTIONAL),
    ("label", core.UTF8String, _optional(implicit=0)),
    ("tokenflags", core.BitString, _OPTIONAL),
    ("seInfo", core.Sequence, _OPTIONAL),
    ("recordInfo", core.Sequence, _optional(implicit=1)),
    ("supportedAlgorithms", core.Sequence, _optional(implicit=2)),
)
COMMON = _sequence(
    ("label", core.UTF8String, _OPTIONAL),
    ("flags", core.BitString, _OPTIONAL),
    ("authId", core.OctetString, _OPTIONAL),
    ("userConsent", core.Integer, _OPTIONAL),
)
PIN = _objects(
    _sequence(("authId", core.OctetString, _OPTIONAL)),
    _sequence(
        ("pinFlags", core.BitString),
        ("pinType", core.Enumerated),
        ("minLength", core.Integer),
        ("storedLength", core.Integer),
        ("maxLength", core.Integer, _OPTIONAL),
        ("pinReference", core.Integer, _optional(implicit=0)),
        ("padChar", core.OctetString, _OPTIONAL),
        ("lastPinChange", core.GeneralizedTime, _OPTIONAL),
        ("path", PATH, _OPTIONAL),
    ),
)
KEY = _objects(
    _sequence(
        ("iD", core.OctetString),
        ("usage", core.BitString),
        ("native", core.Boolean, _OPTIONAL),
        ("accessFlags", core.BitString, _OPTIONAL),
        ("keyReference", core.Integer, _OPTIONAL),
        ("startDate", core.GeneralizedTime, _OPTIONAL),
        ("endDate", core.GeneralizedTime, _optional(implicit=0)),
        ("algReference", core.Sequence, _optional(implicit=1)),
    ),
    # an RSA key's modulusLength; an EC key's INTEGER here is a reference of its curve
    _sequence(("value", VALUE), ("size", core.Integer, _OPTIONAL)),
)
CERTIFICATE = _objects(
    _sequence(("iD", core.OctetString), ("authority", core.Boolean, _OPTIONAL)),
    _sequence(("value", VALUE)),
)
ECDSA = _sequence(("r", core.Integer), ("s", core.Integer))


def careful(work: Callable[..., T], *arguments: Any) -> T:
    """Whatever the parser raises for a card's bytes is the card's fault."""
    try:
        return work(*arguments)
    except Malformed:
        raise
    except Exception as error:
        raise Malformed(f"no such object: {type(error).__name__}") from None


def parsed(spec: Any, der: bytes) -> Any:
    """One value of that type, and nothing after it."""
    return careful(lambda: spec.load(der, strict=True))


def given(value: Any) -> bool:
    """Whether an optional element is there."""
    return not isinstance(value, core.Void)


def content_of(value: Any) -> bytes:
    """An element's bytes without tag and length; b"" where it is absent."""
    return bytes(value.contents or b"") if given(value) else b""


def octets(value: Any, limit: int = IDENTIFIER_LIMIT) -> bytes:
    """The bytes of a string; b"" where it is absent."""
    found = content_of(value)
    if len(found) > limit:
        raise Malformed(f"a string of {len(found)} bytes")
    return found


def number(value: Any) -> int | None:
    """An INTEGER; None where it is absent."""
    if not given(value):
        return None
    if not 0 < len(value.contents or b"") <= _NUMBER_LIMIT:
        raise Malformed("a number of many bytes, or none")
    return int.from_bytes(value.contents, "big", signed=True)


def needed(value: Any) -> int:
    """One that is there and counts something."""
    found = number(value)
    if found is None or found < 0:
        raise Malformed("a number is missing")
    return found


def byte(value: Any) -> int | None:
    """A reference, one byte; some cards encode 80 to FF as negative numbers."""
    found = number(value)
    if found is not None and -_BYTE // 2 <= found < 0:
        found += _BYTE
    if found is not None and not 0 <= found < _BYTE:
        raise Malformed("a reference is more than a byte")
    return found


def bits(value: bytes) -> frozenset[int]:
    """The numbers of the bits that are set in a BIT STRING's content; the first one is bit 0."""
    named = value[1 : 1 + _FLAG_BYTES]
    return frozenset(at for at in range(8 * len(named)) if named[at // 8] << at % 8 & 0x80)
