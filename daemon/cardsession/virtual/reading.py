"""Read options as people and JSON write them. ValueError names what was expected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, Final, TypeVar

from cardsession.virtual.options import (
    Algorithm,
    CardOptions,
    Family,
    PinPolicy,
    Slot,
    TransmissionProtocol,
)
from cardsession.virtual.pkcs15.options import (
    CertificatePlace,
    EmptyVerify,
    EndOfFile,
    Mechanism,
    Padding,
    Paths,
    PinType,
    Pkcs15Options,
    SelectAnswer,
)

_Options = TypeVar("_Options", CardOptions, Pkcs15Options)

_GUID: Final = 16
_LONGEST_ATR: Final = 33
_MOST_TRIES: Final = 15
_LONGEST_PIN: Final = 64
_MOST_SLACK: Final = 4096
_BYTE: Final = 0xFF
_PATH: Final = 4


def hexadecimal(text: str) -> bytes | None:
    """The bytes written in `text`, or None if it is not hexadecimal."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


def _hex(value: object) -> bytes:
    raw = hexadecimal(value) if isinstance(value, str) else None
    if raw is None:
        raise ValueError("hexadecimal digits were expected")
    return raw


def _guid(value: object) -> bytes | None:
    if value is None:
        return None
    if len(raw := _hex(value)) != _GUID:
        raise ValueError("16 bytes in hexadecimal were expected")
    return raw


def _atr(value: object) -> bytes | None:
    if value is None:
        return None
    if len(raw := _hex(value)) > _LONGEST_ATR:
        raise ValueError("at most 33 bytes in hexadecimal were expected")
    return raw


def slots(value: object) -> tuple[Slot, ...]:
    """Slots from "9A,9C" or ["9A", "9C"]."""
    parts: Iterable[object] = value.split(",") if isinstance(value, str) else ()
    if isinstance(value, list):
        parts = value
    try:
        return tuple(Slot(int(str(part), 16)) for part in parts if part)
    except ValueError:
        raise ValueError("a list of 9A, 9C, 9D, 9E was expected") from None


def _objects(value: object) -> dict[int, bytes | None]:
    if not isinstance(value, dict):
        raise ValueError('an object {"5FC105": "hexadecimal" or null} was expected')
    return {
        int.from_bytes(_hex(tag), "big"): None if raw is None else _hex(raw)
        for tag, raw in value.items()
    }


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("text was expected")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false was expected")
    return value


def _days(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("a number of days was expected")
    return value


def _upto(most: int) -> Callable[[object], object]:
    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise ValueError(f"a number from 0 to {most} was expected")
        return value

    return read


def _choice(kind: Any) -> Callable[[object], object]:
    def read(value: object) -> object:
        try:
            return kind(str(value))
        except ValueError:
            raise ValueError(f"one of {', '.join(kind)} was expected") from None

    return read


def _mechanisms(value: object) -> tuple[Mechanism, ...]:
    """Mechanisms from "RSA_PKCS,RSA_X_509", or a list of such names."""
    parts: Iterable[object] = value.split(",") if isinstance(value, str) else ()
    if isinstance(value, list | tuple):
        parts = value
    try:
        return tuple(Mechanism[str(part).upper()] for part in parts if part)
    except KeyError:
        names = ", ".join(each.name for each in Mechanism)
        raise ValueError(f"a list of {names} was expected") from None


def _optional_hex(value: object) -> bytes | None:
    return None if value is None else _hex(value)


def _files(value: object) -> dict[str, bytes | None]:
    if not isinstance(value, dict):
        raise ValueError('an object {"3F0050155031": "hexadecimal" or null} was expected')
    if any(len(_hex(path)) < _PATH for path in value):
        raise ValueError("paths from the MF on were expected, such as 3F0050155031")
    return {path: _optional_hex(raw) for path, raw in value.items()}


def _limit(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST_TRIES:
        raise ValueError("1 to 15 tries were expected")
    return value


def _tries(value: object) -> int | None:
    return value if value is None or value == 0 else _limit(value)


_READERS: Final[dict[str, Callable[[object], object]]] = {
    "family": _choice(Family),
    "holder": _text,
    "organisation": _text,
    "unit": _text,
    "guid": _guid,
    "algorithm": _choice(Algorithm),
    "slots": slots,
    "valid_days": _days,
    "days_left": _days,
    "pin_policy": _choice(PinPolicy),
    "tries_limit": _limit,
    "tries": _tries,
    "puk_limit": _limit,
    "protocol": _choice(TransmissionProtocol),
    "atr": _atr,
    "objects": _objects,
}
_READERS_15: Final[dict[str, Callable[[object], object]]] = {
    "label": _text,
    "manufacturer": _text,
    "serial": _optional_hex,
    "aid": _hex,
    "pin_label": _text,
    "pin_reference": _upto(_BYTE),
    "pin_type": _choice(PinType),
    "padding": _choice(Padding),
    "minimum_length": _upto(_LONGEST_PIN),
    "maximum_length": _upto(_LONGEST_PIN),
    "stored_length": _upto(_LONGEST_PIN),
    "signature_pin_label": _text,
    "signature_pin_reference": _upto(_BYTE),
    "puk_label": _text,
    "puk_reference": _upto(_BYTE),
    "empty_verify": _choice(EmptyVerify),
    "paths": _choice(Paths),
    "slack": _upto(_MOST_SLACK),
    "slack_byte": _upto(_BYTE),
    "select_answer": _choice(SelectAnswer),
    "end_of_file": _choice(EndOfFile),
    "certificates": _choice(CertificatePlace),
    "mechanisms": _mechanisms,
    "files": _files,
}
"""Whatever is not in these tables is true or false."""


def changed(options: CardOptions, changes: Mapping[str, object]) -> CardOptions:
    """`options` with some fields changed, given as JSON has them. ValueError otherwise.

    "pkcs15" is an object of its own, with the changes in it.
    """
    changes = dict(changes)
    nested = changes.pop("pkcs15", {})
    if not isinstance(nested, Mapping):
        raise ValueError("pkcs15: an object was expected")
    try:
        inner = _changed(options.pkcs15, nested, _READERS_15)
    except ValueError as error:
        raise ValueError(f"pkcs15: {error}") from None
    return replace(_changed(options, changes, _READERS), pkcs15=inner)


def _changed(
    options: _Options,
    changes: Mapping[str, object],
    readers: Mapping[str, Callable[[object], object]],
) -> _Options:
    known = {field.name for field in fields(options)}
    read: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in known:
            raise ValueError(f"{name} is unknown; one of {', '.join(sorted(known))} was expected")
        try:
            read[name] = readers.get(name, _flag)(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return replace(options, **read)
