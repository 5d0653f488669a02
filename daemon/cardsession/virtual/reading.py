"""Read options as people and JSON write them. ValueError names what was expected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from typing import Final

from cardsession.virtual.options import Algorithm, CardOptions, PinPolicy, Slot

_GUID: Final = 16
_LONGEST_ATR: Final = 33
_MOST_TRIES: Final = 15


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


def _limit(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST_TRIES:
        raise ValueError("1 to 15 tries were expected")
    return value


def _tries(value: object) -> int | None:
    return value if value is None or value == 0 else _limit(value)


_READERS: Final[dict[str, Callable[[object], object]]] = {
    "holder": _text,
    "organisation": _text,
    "unit": _text,
    "guid": _guid,
    "algorithm": lambda value: Algorithm(str(value)),
    "slots": slots,
    "valid_days": _days,
    "days_left": _days,
    "pin_policy": lambda value: PinPolicy(str(value)),
    "tries_limit": _limit,
    "tries": _tries,
    "puk_limit": _limit,
    "atr": _atr,
    "objects": _objects,
}


def changed(options: CardOptions, changes: Mapping[str, object]) -> CardOptions:
    """`options` with some fields changed, given as JSON has them. ValueError otherwise."""
    known = {field.name for field in fields(CardOptions)}
    read: dict[str, object] = {}
    for name, value in changes.items():
        if name not in known:
            raise ValueError(f"{name} is unknown; one of {', '.join(sorted(known))} was expected")
        try:
            read[name] = _READERS.get(name, _flag)(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return replace(options, **read)  # type: ignore[arg-type]
