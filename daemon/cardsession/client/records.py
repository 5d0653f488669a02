"""What a client sees: objects as frozen records, and what happened to them.

A record has a field for each property of its interface, in snake case; a property that the
service does not have (an older one) keeps the default here, one that this library does not know
(a newer one) is left out. A word of the contract's closed sets is a member of its set in
`words.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, get_args, get_type_hints

from cardsession.bus import contract
from cardsession.bus.connection import Variant

from .words import (
    Backend,
    CardState,
    Hotplug,
    PinState,
    ReaderState,
    Remedy,
    RemovalPolicy,
    Revocation,
    SessionState,
    TriesSource,
    Trust,
    Word,
)


@dataclass(frozen=True, slots=True)
class ManagerInfo:
    """The daemon itself."""

    path: str
    version: str = ""
    api_level: int = 0
    backend: Backend = Backend.NOT_TOLD
    hotplug: Hotplug = Hotplug.NOT_TOLD
    removal_policy: RemovalPolicy = RemovalPolicy.NOT_TOLD
    idle_usec: int = 0
    max_age_usec: int = 0


@dataclass(frozen=True, slots=True)
class ReaderInfo:
    """A reader."""

    path: str
    id: str = ""
    name: str = ""
    label: str = ""
    serial: str = ""
    port_path: str = ""
    vendor_id: int = 0
    product_id: int = 0
    model: str = ""
    pin_pad: bool = False
    state: ReaderState = ReaderState.NOT_TOLD
    card: str = contract.NO_OBJECT
    insert_count: int = 0
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class CardInfo:
    """A card, for one insertion. In `pin_tries` a missing key is unknown, 0 is blocked."""

    path: str
    reader: str = contract.NO_OBJECT
    atr: bytes = b""
    profile: str = ""
    serial: str = ""
    series: str = ""
    holder_id: str = ""
    state: CardState = CardState.NOT_TOLD
    temporary: bool = False
    not_before: int = 0
    not_after: int = 0
    days_left: int = 0
    renewal_due: bool = False
    pin_change_due: bool = False
    pin_changed_usec: int = 0
    trust: Trust = Trust.NOT_TOLD
    trust_detail: str = ""
    revocation: Revocation = Revocation.NOT_TOLD
    remedies: tuple[Remedy, ...] = ()
    remedy_text: str = ""
    pin_tries: Mapping[str, int] = field(default_factory=dict)
    pin_tries_max: Mapping[str, int] = field(default_factory=dict)
    pin_state: Mapping[str, PinState] = field(default_factory=dict)
    pin_tries_source: TriesSource = TriesSource.NOT_TOLD
    pin_tries_read_usec: int = 0
    session: str = contract.NO_OBJECT
    inserted_usec: int = 0
    inserted_monotonic_usec: int = 0


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session. The last two are not kept live: `CardSessionClient.refresh` reads them anew."""

    path: str
    id: str = ""
    card: str = contract.NO_OBJECT
    reader: str = contract.NO_OBJECT
    owner: str = ""
    owner_uid: int = 0
    purpose: str = ""
    used_by: str = ""
    holder_id: str = ""
    holder_verified: bool = False
    state: SessionState = SessionState.NOT_TOLD
    end_reason: str = ""
    possession_proved: bool = False
    context: Mapping[str, str] = field(default_factory=dict)
    opened_usec: int = 0
    verified_usec: int = 0
    expires_usec: int = 0
    last_activity_monotonic_usec: int = 0
    exchange_count: int = 0


Info = ManagerInfo | ReaderInfo | CardInfo | SessionInfo
KINDS: Mapping[str, type[Info]] = {
    contract.MANAGER: ManagerInfo,
    contract.READER: ReaderInfo,
    contract.CARD: CardInfo,
    contract.SESSION: SessionInfo,
}
"""The record for each interface that has properties."""


# -- what happened


@dataclass(frozen=True, slots=True)
class Added:
    """An object appeared."""

    info: Info


@dataclass(frozen=True, slots=True)
class Changed:
    """An object's properties changed: `info` is the whole as it is now, `names` what differs."""

    info: Info
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Removed:
    """An object is gone: `info` as it was last."""

    info: Info


@dataclass(frozen=True, slots=True)
class Ended:
    """A session ended; its object is removed after this."""

    session: str
    reason: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CardReady:
    """A card became ready."""

    card: str
    reader: str


@dataclass(frozen=True, slots=True)
class CardGone:
    """A card that had been ready is gone."""

    card: str
    reader: str
    reason: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """One exchange with a card, while tracing."""

    reader: str
    usec: int
    header: str
    sent: int
    received: int
    sw: int
    duration_usec: int


@dataclass(frozen=True, slots=True)
class ServiceGone:
    """The daemon left the bus: there are no objects and no sessions any more."""


@dataclass(frozen=True, slots=True)
class ServiceBack:
    """The daemon is on the bus; each of its objects follows as Added."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Too many events were waiting and have been thrown away: look at the snapshots anew."""


Event = (
    Added
    | Changed
    | Removed
    | Ended
    | CardReady
    | CardGone
    | Exchange
    | ServiceGone
    | ServiceBack
    | Lost
)


# -- what is answered


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a PIN operation and the tries left afterwards, None if unknown."""

    outcome: str
    left: int | None


@dataclass(frozen=True, slots=True)
class PinStatus:
    """The state of a PIN and the tries left, None if unknown."""

    state: str
    left: int | None


@dataclass(frozen=True, slots=True)
class Signed:
    """The outcome of SignWithPin; `signature` is empty unless `outcome` is `verified`."""

    outcome: str
    left: int | None
    signature: bytes


@dataclass(frozen=True, slots=True)
class Transmitted:
    """A card's response."""

    data: bytes
    sw: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate on a card; times in Unix seconds, 0 unknown."""

    slot: str
    subject: str
    not_before: int
    not_after: int


@dataclass(frozen=True, slots=True)
class Permission:
    """May a function be used now, and if not, why."""

    permitted: bool
    reason: str


# -- from the wire


@cache
def field_name(name: str) -> str:
    """A property's name in snake case: `PinTriesReadUSec` is `pin_tries_read_usec`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.replace("USec", "Usec")).lower()


_FIELDS = {kind: {each.name for each in fields(kind)} - {"path"} for kind in KINDS.values()}


def _is_word(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Word)


def _words(kind: type[Info]) -> Mapping[str, type[Word]]:
    """The fields of a record that hold words of a closed set: one, several, or by label."""
    found = {
        name: [each for each in (hint, *get_args(hint)) if _is_word(each)]
        for name, hint in get_type_hints(kind).items()
    }
    return {name: sets[0] for name, sets in found.items() if sets}


_WORDS = {kind: _words(kind) for kind in KINDS.values()}


def _in_words(words: type[Word] | None, value: Any) -> Any:
    """A plain value with its words as members of their set."""
    if words is None:
        return value
    match value:
        case tuple():
            return tuple(words(each) for each in value)
        case dict():
            return {label: words(each) for label, each in value.items()}
        case _:
            return words(value)


def plain(value: Any) -> Any:
    """A received value without variants; lists become tuples."""
    match value:
        case Variant():
            return plain(value.value)
        case list():
            return tuple(plain(each) for each in value)
        case dict():
            return {key: plain(each) for key, each in value.items()}
        case _:
            return value


def values(kind: type[Info], properties: Mapping[str, Any]) -> dict[str, Any]:
    """Received properties as fields of a record, unknown ones left out."""
    found = {field_name(name): plain(value) for name, value in properties.items()}
    return {
        name: _in_words(_WORDS[kind].get(name), value)
        for name, value in found.items()
        if name in _FIELDS[kind]
    }


def tries(left: int) -> int | None:
    """The count as the contract sends it: -1 is unknown."""
    return None if left < 0 else left
