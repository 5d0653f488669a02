"""Facts as the contract's properties: plain values, by property name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cardsession.core.facts import Backend, CardFacts, EndReason, Hotplug, ReaderFacts, SessionFacts
from cardsession.core.policy import Removal
from cardsession.core.tries import (
    Blocked,
    Known,
    NoSuchPin,
    NotSet,
    PinStatus,
    Unknown,
    Verified,
    left,
)

from . import contract

Facts = ReaderFacts | CardFacts | SessionFacts
Values = Mapping[str, Any]

_MAX_BYTE = 255
"""What `PinTriesMax` has room for."""


@dataclass(frozen=True, slots=True)
class Constants:
    """What the Manager tells and never changes; times in seconds."""

    version: str
    removal: Removal
    idle_seconds: int
    max_age_seconds: int


def manager(constants: Constants) -> Values:
    """The Manager's properties as it starts; `Backend` and `Hotplug` change later."""
    return {
        "Version": constants.version,
        "ApiLevel": contract.API_LEVEL,
        "Backend": str(Backend.STARTING),
        "Hotplug": str(Hotplug.PCSC_ONLY),
        "RemovalPolicy": str(constants.removal),
        "IdleUSec": constants.idle_seconds * 1_000_000,
        "MaxAgeUSec": constants.max_age_seconds * 1_000_000,
    }


def path_of(facts: Facts) -> str:
    """The object path of a record."""
    match facts:
        case ReaderFacts():
            return reader_path(facts.id)
        case CardFacts():
            return f"{contract.CARDS}/{facts.number}"
        case SessionFacts():
            return f"{contract.SESSIONS}/{facts.number}"


def reader_path(reader_id: str) -> str:
    """The object path of a reader."""
    return f"{contract.READERS}/{contract.escape_label(reader_id)}"


def describe(facts: Facts) -> tuple[str, Values]:
    """The interface of a record and its properties' values."""
    match facts:
        case ReaderFacts():
            return contract.READER, _reader(facts)
        case CardFacts():
            return contract.CARD, _card(facts)
        case SessionFacts():
            return contract.SESSION, _session(facts)


def pin_state(status: PinStatus) -> str:
    """`Card.PinState` of one PIN."""
    match status:
        case Known(1):
            return "last-try"
        case Known():
            return "unverified"
        case Verified():
            return "verified"
        case Blocked():
            return "blocked"
        case NotSet():
            return "not-set"
        case NoSuchPin() | Unknown():
            return "unknown"


def _reader(facts: ReaderFacts) -> Values:
    return {
        "Id": facts.id,
        "Name": facts.name,
        "Label": facts.label,
        "Serial": facts.serial,
        "PortPath": facts.port_path,
        "VendorId": facts.vendor_id,
        "ProductId": facts.product_id,
        "Model": facts.model,
        "PinPad": facts.pin_pad,
        "State": str(facts.state),
        "Card": _numbered(contract.CARDS, facts.card),
        "InsertCount": facts.insert_count,
        "LastError": facts.last_error,
    }


def _card(facts: CardFacts) -> Values:
    holder = facts.holder
    pins = facts.pins
    counts = {label: left(status) for label, status in pins.status.items()}
    return {
        "Reader": reader_path(facts.reader_id),
        "Atr": facts.atr,
        "Profile": facts.profile,
        "Serial": facts.serial,
        "Series": facts.series,
        "HolderId": holder.common_name if holder else "",
        "State": str(facts.state),
        "Temporary": facts.temporary,
        "NotBefore": holder.not_before if holder else 0,
        "NotAfter": holder.not_after if holder else 0,
        "DaysLeft": facts.days_left,
        "RenewalDue": facts.renewal_due,
        "PinChangeDue": pins.change_due,
        "PinChangedUSec": pins.changed_usec,
        "Trust": str(facts.standing.trust),
        "TrustDetail": facts.standing.detail,
        "Revocation": str(facts.standing.revocation),
        "Remedies": [str(remedy) for remedy in facts.remedies],
        "RemedyText": facts.remedy_text,
        "PinTries": {label: count for label, count in counts.items() if count is not None},
        "PinTriesMax": {label: most for label, most in pins.most.items() if 0 < most <= _MAX_BYTE},
        "PinState": {label: pin_state(status) for label, status in pins.status.items()},
        "PinTriesSource": str(pins.source),
        "PinTriesReadUSec": pins.read_usec,
        "Session": _numbered(contract.SESSIONS, facts.session),
        "InsertedUSec": facts.inserted_usec,
        "InsertedMonotonicUSec": facts.inserted_monotonic_usec,
    }


def _session(facts: SessionFacts) -> Values:
    pulled = facts.end_reason in (EndReason.CARD_REMOVED, EndReason.READER_REMOVED)
    gone = pulled or facts.card is None
    return {
        "Id": str(facts.number),
        "Card": contract.NO_OBJECT if gone else _numbered(contract.CARDS, facts.card),
        "Reader": contract.NO_OBJECT if gone else reader_path(facts.reader_id),
        "Owner": facts.owner,
        "OwnerUid": facts.owner_uid,
        "Purpose": facts.purpose,
        "UsedBy": facts.used_by,
        "HolderId": facts.holder_id,
        "HolderVerified": facts.holder_verified,
        "State": str(facts.state),
        "EndReason": facts.end_reason,
        "PossessionProved": facts.possession_proved,
        "Context": dict(facts.context),
        "OpenedUSec": facts.opened_usec,
        "VerifiedUSec": facts.verified_usec,
        "ExpiresUSec": facts.expires_usec,
        "LastActivityMonotonicUSec": facts.last_activity_monotonic_usec,
        "ExchangeCount": facts.exchange_count,
    }


def _numbered(parent: str, number: int | None) -> str:
    return contract.NO_OBJECT if number is None else f"{parent}/{number}"
