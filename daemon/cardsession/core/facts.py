"""What is shown of a reader, a card and a session: records, replaced and never changed.

The defaults are the contract's "not known". A publisher turns these into whatever it speaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from .tries import PinStatus, Source


class ReaderState(StrEnum):
    """`Reader.State`."""

    EMPTY = "empty"
    PROBING = "probing"
    READY = "ready"
    IN_USE_ELSEWHERE = "in-use-elsewhere"
    MUTE = "mute"
    STUCK = "stuck"
    NO_DRIVER = "no-driver"


class CardState(StrEnum):
    """`Card.State`."""

    PROBING = "probing"
    READY = "ready"
    BLANK = "blank"
    UNKNOWN = "unknown"
    MUTE = "mute"


class SessionState(StrEnum):
    """`Session.State`."""

    UNVERIFIED = "unverified"
    VERIFYING = "verifying"
    ACTIVE = "active"
    LOCKED = "locked"
    ENDED = "ended"


class Trust(StrEnum):
    """`Card.Trust`."""

    TRUSTED = "trusted"
    UNTRUSTED = "untrusted"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    REVOKED = "revoked"
    NO_CERTIFICATE = "no-certificate"
    NOT_CHECKED = "not-checked"


class Revocation(StrEnum):
    """`Card.Revocation`: what the site's revocation lists say of the holder's certificate."""

    GOOD = "good"
    REVOKED = "revoked"
    NOT_CHECKED = "not-checked"


class Backend(StrEnum):
    """`Manager.Backend`: the card service as we find it."""

    STARTING = "starting"
    OK = "ok"
    PCSCD_DOWN = "pcscd-down"
    DENIED = "denied"
    PROTOCOL_MISMATCH = "protocol-mismatch"


class Hotplug(StrEnum):
    """`Manager.Hotplug`: how we hear of readers that come and go."""

    UDEV = "udev"
    PCSC_ONLY = "pcsc-only"


class Remedy(StrEnum):
    """`Card.Remedies`: what helps, by the field's names."""

    RENEW = "renew"
    SELF_UNLOCK = "self-unlock"
    LSA_OR_SPONSOR = "lsa-or-sponsor"
    RA_IN_PERSON = "ra-in-person"
    REPLACE_CARD = "replace-card"
    ACTIVATE_TEMPORARY_CARD = "activate-temporary-card"
    UNBLOCK = "unblock"
    CONTACT_ISSUER = "contact-issuer"


class EndReason(StrEnum):
    """Why a session ended (bus contract, "End reasons")."""

    CLOSED = "closed"
    OWNER_VANISHED = "owner-vanished"
    LIFETIME_CLOSED = "lifetime-closed"
    CARD_REMOVED = "card-removed"
    CARD_REPLACED = "card-replaced"
    LOCK_EXPIRED = "lock-expired"
    READER_REMOVED = "reader-removed"
    CARD_RESET = "card-reset"
    CARD_MUTE = "card-mute"
    PIN_BLOCKED = "pin-blocked"
    POSSESSION_FAILED = "possession-failed"
    NOT_TRUSTED = "not-trusted"
    IDLE_TIMEOUT = "idle-timeout"
    MAX_AGE = "max-age"
    SUSPEND = "suspend"
    FORCED = "forced"
    BACKEND_LOST = "backend-lost"
    DAEMON_STOPPING = "daemon-stopping"


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate of a card: its facts, and the DER they were read from."""

    slot: str
    der: bytes = field(repr=False)
    subject: str = ""
    common_name: str = ""
    not_before: int = 0
    """Unix seconds; 0 unknown."""
    not_after: int = 0
    organisation: str = ""
    """The subject's O: "nhs" puts the card under the NHS's rules."""
    key_type: str = ""
    """`rsa` or `ec`; "" for anything else."""
    key_bits: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """What was judged of the holder's certificate: `Trust`, `TrustDetail`, `Revocation`."""

    trust: Trust = Trust.NOT_CHECKED
    detail: str = ""
    revocation: Revocation = Revocation.NOT_CHECKED


@dataclass(frozen=True, slots=True)
class PinFacts:
    """What is published of the PINs of one card, all read in one conversation."""

    status: Mapping[str, PinStatus] = field(default_factory=dict)
    source: Source = Source.NONE
    read_usec: int = 0
    most: Mapping[str, int] = field(default_factory=dict)
    """`PinTriesMax`: the most tries a PIN can have, where the card told."""
    changed_usec: int = 0
    """When the passcode was last changed here; 0 unknown."""
    change_due: bool = False
    issued_locked: bool = False
    """Blocked although nobody tried it here: it may have been issued so."""


@dataclass(frozen=True, slots=True)
class ReaderFacts:
    """One reader: a seat at the counter."""

    id: str
    name: str
    label: str = ""
    serial: str = ""
    port_path: str = ""
    vendor_id: int = 0
    product_id: int = 0
    model: str = ""
    pin_pad: bool = False
    state: ReaderState = ReaderState.EMPTY
    card: int | None = None
    insert_count: int = 0
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class CardFacts:
    """One insertion of one card."""

    number: int
    reader_id: str
    atr: bytes
    inserted_usec: int
    inserted_monotonic_usec: int
    profile: str = "unknown"
    serial: str = ""
    series: str = "unknown"
    state: CardState = CardState.PROBING
    temporary: bool = False
    certificates: Mapping[str, Certificate] = field(default_factory=dict)
    standing: Standing = Standing()
    days_left: int = 0
    renewal_due: bool = False
    pins: PinFacts = PinFacts()
    nhs: bool = False
    """Whether the NHS's rules apply: the holder's organisation, or the site, says so."""
    remedies: tuple[Remedy, ...] = ()
    remedy_text: str = ""
    session: int | None = None

    @property
    def holder(self) -> Certificate | None:
        """The authentication certificate: whose card it claims to be."""
        return self.certificates.get("authentication")


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """One session: a caller, a card, and what was proved so far."""

    number: int
    card: int | None
    """None while a locked or kept session has no card in its reader."""
    reader_id: str
    owner: str
    owner_uid: int
    purpose: str
    used_by: str
    opened_usec: int
    expires_usec: int
    state: SessionState = SessionState.UNVERIFIED
    holder_id: str = ""
    end_reason: str = ""
    verified_usec: int = 0
    possession_proved: bool = False
    """The card's authentication key signed our nonce."""
    holder_verified: bool = False
    """That, and its certificate is trusted."""
    context: Mapping[str, str] = field(default_factory=dict)
    last_activity_monotonic_usec: int = 0
    exchange_count: int = 0
