"""An entry as a line, and what is never in one. Pure.

Values are texts and numbers. Bytes, a `Secret`, whatever else: the type has no place for it, and
at run time `<masked>` takes its place. So it does for a field whose name says that a secret could
be in it (`is_secretive`): a trail that lacks a field is better than one that a slip of ours filled
with passcodes. A slip is logged as an error; where `strict` is set, as tests do, it is a
`ValueError` at once. A digit that somebody typed as text (who uses the card, say) looks like any
other: callers pass no text that a passcode could have been typed into.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Final

from cardsession.core.text import clean

MASKED: Final = "<masked>"
MOST_FIELDS: Final = 32

Value = str | int
"""bool is an int."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,47}")
_OURS: Final = frozenset({"time", "event"})
_INT64: Final = range(-(1 << 63), 1 << 63)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_USEC: Final = timedelta(microseconds=1)

_SECRETIVE: Final = frozenset(
    {"pin", "pins", "puk", "puks", "secret", "secrets", "passcode", "passcodes", "passphrase"}
    | {"password", "passwords", "apdu", "apdus", "command", "response", "data", "payload", "body"}
    | {"raw", "hex", "bytes", "digest", "signature", "key"}
)
_HARMLESS: Final = frozenset(
    {"label", "state", "source", "tries", "left", "reference", "length", "changed", "outcome"}
)
"""`pin_label` is the name of a PIN, and no PIN."""


def is_secretive(name: str) -> bool:
    """Whether a field of this name could hold a secret, or data of an APDU."""
    words = name.lower().split("_")
    return words[-1] not in _HARMLESS and not _SECRETIVE.isdisjoint(words)


def slips(fields: Mapping[str, object]) -> Iterator[str]:
    """The names of fields that no entry may have, or not with such a value."""
    for at, (name, value) in enumerate(fields.items()):
        fine = _NAME.fullmatch(name) and name not in _OURS and not is_secretive(name)
        if at >= MOST_FIELDS or not fine or not isinstance(value, (str, int)):
            yield name


def line(usec: int, event: str, fields: Mapping[str, Value]) -> bytes:
    """One entry; what slips is masked, or left out where even its name is none of an entry's."""
    entry: dict[str, Value] = {"time": _time(usec), "event": clean(event)}
    masked = set(slips(fields))
    for name, value in list(fields.items())[:MOST_FIELDS]:
        if name in masked and _NAME.fullmatch(name):
            entry.setdefault(name, MASKED)
        elif name not in masked:
            entry[name] = _plain(value)
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def day(usec: int) -> date:
    """The day (UTC) whose file an entry belongs to."""
    return (_EPOCH + usec * _USEC).date()


def usec_of(time: str) -> int:
    """The reverse of an entry's time; `ValueError` for what is none."""
    moment = datetime.fromisoformat(time)
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return (moment - _EPOCH) // _USEC


def _time(usec: int) -> str:
    return (_EPOCH + usec * _USEC).isoformat(timespec="microseconds")


def _plain(value: Value) -> Value:
    """Cleaned, bounded, and of the base type."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        # an enumeration's member in a range would be looked for one by one
        number = int(value)
        return number if number in _INT64 else "<huge>"
    return clean(value)
